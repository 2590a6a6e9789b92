//! Other HTTP/2 implementations: Python's grpcio, which is the C core, and requests byte by byte.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::device_plugin::Node;
use crate::kubelet::Behaviour;

/// Uses the protocol without its messages: as bytes, so that no code has to be generated.
const CLIENT: &str = r#"
import sys
import grpc
channel = grpc.insecure_channel("unix:" + sys.argv[1])
def call(name):
    return channel.unary_unary("/v1beta1.DevicePlugin/" + name)
print(call("GetDevicePluginOptions")(b"", timeout=10).hex())
# AllocateRequest{container_requests: [{devices_ids: ["/dev/null"]}]}
wanted = b"\x0a\x0b\x0a\x09/dev/null"
print(b"/dev/null" in call("Allocate")(wanted, timeout=10))
lists = channel.unary_stream("/v1beta1.DevicePlugin/ListAndWatch")(b"", timeout=10)
print(b"Healthy" in next(lists))
lists.cancel()
try:
    call("NoSuchCall")(b"", timeout=10)
except grpc.RpcError as error:
    print(error.code().name)
"#;

/// Needs no root, but Python's grpcio (Debian: python3-grpcio).
#[tokio::test]
#[ignore = "needs Python's grpcio: run by tests/run.sh --privileged"]
async fn the_plugin_and_grpcios_c_core_understand_each_other() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered("hostdev.k8s.io/dev_null").await;
    registered.list().await;
    let socket = node.kubelet_dir().join(&registered.request.endpoint);
    let python = std::env::var("OCI_HOTPLUG_TEST_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into());
    let client = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .args(["-c", CLIENT])
            .arg(socket)
            .output()
            .expect("run python3")
    });
    let output = client.await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    // DevicePluginOptions{get_preferred_allocation_available: true}
    assert_eq!(
        printed,
        "1001\nTrue\nTrue\nUNIMPLEMENTED\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Sends a request with this `:authority`, and returns whether the response begins with headers.
fn is_answered(socket: &std::path::Path, authority: &str) -> bool {
    let mut stream = UnixStream::connect(socket).expect("connect to the plugin");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // HPACK without its table (RFC 7541, 6.2.2): each name and value is a literal.
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1beta1.DevicePlugin/GetDevicePluginOptions"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, id]);
        frame.extend(payload);
        frame
    };
    let (settings, headers, data) = (4, 1, 0);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(settings, 0, 0, &[])).unwrap();
    stream.write_all(&frame(headers, 4, 1, &block)).unwrap();
    stream.write_all(&frame(data, 1, 1, &[0; 5])).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("the frame's payload");
        match (head[3], head[8]) {
            (1, 1) => return true,
            // RST_STREAM, or GOAWAY.
            (3, 1) | (7, _) => return false,
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_authority_of_kubelets_calls_is_accepted_and_that_of_its_plugin_watcher_is_not_yet() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    let registered = kubelet.registered("hostdev.k8s.io/dev_null").await;
    let socket = node.kubelet_dir().join(&registered.request.endpoint);
    let answers = tokio::task::spawn_blocking(move || {
        ["localhost", "%2Fvar%2Flib%2Fkubelet.sock"].map(|authority| is_answered(&socket, authority))
    });
    // The second form is h2's rejection of a percent sign (kubernetes.md 1.2). When h2 accepts it,
    // kubelet's plugins_registry becomes possible.
    assert_eq!(answers.await.unwrap(), [true, false]);
}
