//! A client for the cluster's API server in a pod: address from the environment, token and CA of
//! the service account from files, one HTTPS request after the other. Must not know what is sent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::model::quoting::shown;

/// The timeout of connecting, and of each response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response that is read, in bytes.
const MAX_RESPONSE: usize = 64 << 10;

/// The most characters of its message that are shown.
const MAX_MESSAGE: usize = 500;

/// Variables that kubelet sets in each container (Kubernetes' "Accessing the API from a Pod").
const HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";
const PORT_VARIABLE: &str = "KUBERNETES_SERVICE_PORT";

/// The API server's address, and the directory of the service account.
#[derive(Debug, Clone)]
pub(crate) struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

/// The address is not in the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server's address is unknown: set {HOST_VARIABLE} and {PORT_VARIABLE}, as kubelet does in each pod"
)]
pub(crate) struct NoAddress;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// A file of the service account is not readable.
    #[error("cannot read {}: {source} (the pod must mount its service account's token and CA there)", .path.display())]
    Account { path: PathBuf, source: io::Error },
    #[error("{} contains no usable certificate: {reason}", .path.display())]
    Certificate { path: PathBuf, reason: String },
    /// The server is not reachable, or its certificate is not signed by the CA.
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    /// The connection ended, or does not use HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error("no response within {TIMEOUT:?}")]
    Timeout,
    #[error("the server responded {status}: {message}")]
    Rejected { status: StatusCode, message: String },
}

impl ApiServer {
    /// The API server of this pod's cluster, for the service account whose `token` and `ca.crt` are
    /// in a directory.
    ///
    /// # Errors
    ///
    /// If the address is not in the environment.
    pub(crate) fn of_this_pod(account: &Path) -> Result<Self, NoAddress> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable(HOST_VARIABLE).ok_or(NoAddress)?;
        let port = variable(PORT_VARIABLE).ok_or(NoAddress)?;
        Ok(Self {
            host,
            port: port.parse().map_err(|_| NoAddress)?,
            account: account.to_owned(),
        })
    }

    /// Opens a connection and verifies the server's certificate with the service account's CA.
    ///
    /// # Errors
    ///
    /// If the server is not reachable or not verified.
    pub(crate) async fn connect(&self) -> Result<Connection, RequestError> {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let address = format!("{host}:{}", self.port);
        let connect_error = |source: io::Error| RequestError::Connect {
            address: address.clone(),
            source,
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| connect_error(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let opened = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tls.connect(name, stream).await
        };
        let stream = timeout(TIMEOUT, opened)
            .await
            .map_err(|_| RequestError::Timeout)?
            .map_err(connect_error)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The task ends with the sender.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            host: address,
            token: self.account.join("token"),
        })
    }

    /// The CA is read at each connection: a cluster may change it.
    fn tls(&self) -> Result<ClientConfig, RequestError> {
        let path = self.account.join("ca.crt");
        let pem = std::fs::read(&path).map_err(|source| RequestError::Account {
            path: path.clone(),
            source,
        })?;
        let unusable = |reason: String| RequestError::Certificate {
            path: path.clone(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("no PEM block of type CERTIFICATE".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: PathBuf,
}

impl Connection {
    /// Sends JSON to a path. Reads the token for each request, because kubelet renews it.
    ///
    /// # Errors
    ///
    /// If there is no response, or the server rejects the request.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &'static str,
        content: &Value,
    ) -> Result<(), RequestError> {
        let token = std::fs::read_to_string(&self.token).map_err(|source| RequestError::Account {
            path: self.token.clone(),
            source,
        })?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(Bytes::from(content.to_string())))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            // A body that is too long is ignored: the status is enough.
            let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
            Ok::<_, hyper::Error>((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        let (status, body) = timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| RequestError::Timeout)??;
        if status.is_success() {
            return Ok(());
        }
        Err(RequestError::Rejected {
            status,
            message: message_in(&body),
        })
    }
}

/// The message in the body of a rejection (Kubernetes' `Status`), shortened; empty if there is
/// none.
pub fn message_in(body: &[u8]) -> String {
    let status: Option<Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
    shown(message.unwrap_or_default(), MAX_MESSAGE)
}
