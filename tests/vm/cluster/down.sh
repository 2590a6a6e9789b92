#!/bin/sh
# Undoes up.sh, and removes every pod. containerd stays.
set -eu
services="kube-apiserver kube-controller-manager kube-scheduler kubelet"
# etcd last: without it the API server does not end. (They are killed after TimeoutStopSec, as
# nobody needs their last words.)
# shellcheck disable=SC2086 # a list of words
systemctl --quiet stop $services
systemctl --quiet stop etcd
# shellcheck disable=SC2086
systemctl --quiet disable $services etcd containerd
crictl -r unix:///run/containerd/containerd.sock rmp --all --force
# Tokens and ConfigMaps.
cut -d ' ' -f 2 /proc/mounts | grep '^/var/lib/kubelet/pods/' | xargs -r umount
rm -rf /etc/systemd/system/kube-*.service /etc/systemd/system/kubelet.service.d /etc/kubernetes /var/lib/kubernetes \
    /var/lib/etcd/default /var/lib/kubelet/device-plugins /var/lib/kubelet/pods /run/cdi
systemctl daemon-reload
ip address del 10.0.0.1/32 dev lo
