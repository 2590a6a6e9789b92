//! A simulated API server: accepts events by HTTPS, records each request, and responds with a given
//! status.
//!
//! Its certificate is that of tests/fixtures/api_server, made with openssl for 127.0.0.1 and signed
//! with ca.crt there.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Runs until it is dropped.
pub struct ApiServer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    status: Arc<Mutex<StatusCode>>,
    _server: JoinSet<()>,
}

/// A request that was received.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub method: Method,
    pub path: String,
    pub token: String,
    pub content: Value,
}

/// A file of the certificate.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/api_server")
        .join(name)
}

fn tls() -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(fixture("server.crt")).expect("a certificate's file");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}

impl ApiServer {
    /// Starts at `address`, which may have port 0, and accepts all requests.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("listen as an API server");
        let address = listener.local_addr().expect("its address");
        let requests = Arc::<Mutex<Vec<ReceivedRequest>>>::default();
        let status = Arc::new(Mutex::new(StatusCode::CREATED));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&requests), Arc::clone(&status)));
        Self {
            address,
            requests,
            status,
            _server: server,
        }
    }

    /// From now on responds with this status.
    pub fn respond_with(&self, status: u16) {
        *self.status.lock().expect("no thread panicked") = StatusCode::from_u16(status).expect("a status");
    }

    /// All requests that were received.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().expect("no thread panicked").clone()
    }
}

async fn serve(
    listener: TcpListener,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    status: Arc<Mutex<StatusCode>>,
) {
    let tls = tls();
    // They end with the server.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let (tls, requests, status) = (tls.clone(), Arc::clone(&requests), Arc::clone(&status));
        connections.spawn(async move {
            // A client that does not trust the certificate closes the connection.
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let (requests, status) = (Arc::clone(&requests), Arc::clone(&status));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("a request's body").to_bytes();
                    let token = head.headers["authorization"].to_str().expect("text").to_owned();
                    requests
                        .lock()
                        .expect("no thread panicked")
                        .push(ReceivedRequest {
                            method: head.method,
                            path: head.uri.path().to_owned(),
                            token,
                            content: serde_json::from_slice(&body).expect("JSON"),
                        });
                    let status = *status.lock().expect("no thread panicked");
                    let body = json!({ "kind": "Status", "message": format!("the test sets {status}") });
                    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
