//! The plugin's state over HTTP: `/metrics` (Prometheus' text format), `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::warn;

use super::metrics::{self, Metrics};

/// The timeout for a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The content type of all responses but /metrics.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Listens on `ADDRESS:PORT`; `:PORT` means all addresses, as in Go.
///
/// # Errors
///
/// If listening on the address fails.
pub(super) async fn listen(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix(':') {
        // Without IPv6 in the kernel, listen on IPv4 only.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    }
}

/// Answers requests on a listener until it fails.
pub(super) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let Err(error) = answer_all(listener, metrics).await;
    warn!("cannot accept connections for /metrics: {error}");
}

async fn answer_all(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let metrics = Arc::clone(&metrics);
        let service =
            service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&metrics, &request))));
        connections.spawn(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service),
        );
        while connections.try_join_next().is_some() {}
    }
}

/// The answer to one request.
fn answer(metrics: &Metrics, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, kind, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, metrics::CONTENT_TYPE, metrics.text()),
        // Any answer is sufficient: if a call blocked the only thread, there would be none. /health
        // is the path of usbip-device-plugin and generic-device-plugin.
        "/healthz" | "/health" => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => match &metrics.unregistered()[..] {
            [] => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
            missing => {
                let text = format!("not registered with kubelet: {}\n", missing.join(", "));
                (StatusCode::SERVICE_UNAVAILABLE, PLAIN, text)
            }
        },
        _ => {
            let text = "the paths are /metrics, /healthz and /readyz\n".to_owned();
            (StatusCode::NOT_FOUND, PLAIN, text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
