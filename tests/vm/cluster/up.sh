#!/bin/sh
# Makes the machine a cluster of one node, as its services have it at each start from now on: etcd,
# API server, controller manager, scheduler, kubelet with containerd. Returns when the node is
# ready. Run in the machine, with these files beside it.
set -eu
cd "$(dirname "$(realpath "$0")")"
state=/var/lib/kubernetes

# Secrets are none here: nobody but the machine reaches it.
mkdir -p $state
cat > $state/tokens.csv <<END
admin,admin,admin,system:masters
controllers,controllers,controllers,system:masters
scheduler,system:kube-scheduler,scheduler
kubelet,system:node:$(hostname),kubelet,system:nodes
END
for user in admin controllers scheduler kubelet; do
    cat > $state/$user.conf <<END
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: $user}}]
clusters: [{name: it, cluster: {server: "https://10.0.0.1", certificate-authority: $state/ca.crt}}]
users: [{name: $user, user: {token: $user}}]
END
done
[ -e $state/accounts.key ] || ssh-keygen -q -t rsa -m PEM -N '' -f $state/accounts.key

cp ./*.service /etc/systemd/system/
mkdir -p /etc/systemd/system/kubelet.service.d /etc/kubernetes
cp kubelet.conf /etc/systemd/system/kubelet.service.d/cluster.conf
cp kubelet.yaml /etc/kubernetes/
systemctl daemon-reload
services="etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet"
# shellcheck disable=SC2086 # a list of words
systemctl --quiet enable $services
# shellcheck disable=SC2086
systemctl start $services

# kubectl may not ask often: each time costs a second of the processor.
kubectl="kubectl --kubeconfig=$state/admin.conf"
end=$(($(date +%s) + 180))
until words=$($kubectl wait --timeout=60s --for=condition=Ready "node/$(hostname)" 2>&1); do
    [ "$(date +%s)" -lt $end ] || { echo "$words"; exit 1; }
    sleep 1
done
