//! The cluster's API server, as a pod reaches it: its address from the environment, the service account's token and CA from
//! files, one HTTPS request after the other. Must not know what is said.

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

/// The timeout of connecting, and of each response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes that are read of a response.
const MAX_RESPONSE: usize = 64 << 10;

/// What kubelet tells each container (Kubernetes' "Accessing the API from a Pod").
const HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";
const PORT_VARIABLE: &str = "KUBERNETES_SERVICE_PORT";

/// Where it is, and as whom it is spoken to.
#[derive(Debug, Clone)]
pub struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API server's address is not known: {HOST_VARIABLE} and {PORT_VARIABLE} must say it, as kubelet does in each pod"
)]
pub struct NoAddress;

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file of the service account.
    #[error("reading {}: {source} (the pod must mount its service account's token and CA there)", .path.display())]
    Account {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The CA's certificate.
    #[error("{} holds no certificate: {why}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It can't be reached, or is not who it should be.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// What is wrong.
        source: io::Error,
    },
    /// It went, or speaks no HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// What was to be sent is no request.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// No answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    NoAnswer,
    /// It says no.
    #[error("it answers {status}: {message}")]
    Refused {
        /// How.
        status: StatusCode,
        /// In its words.
        message: String,
    },
}

impl ApiServer {
    /// The one of this pod's cluster, with the service account whose `token` and `ca.crt` are in a directory.
    ///
    /// # Errors
    /// When the environment does not say where it is.
    pub fn of_this_pod(account: &Path) -> Result<Self, NoAddress> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = variable(HOST_VARIABLE).ok_or(NoAddress)?;
        let port = variable(PORT_VARIABLE).ok_or(NoAddress)?;
        Ok(Self {
            host,
            port: port.parse().map_err(|_| NoAddress)?,
            account: account.to_owned(),
        })
    }

    /// Opens a connection, and makes sure by the service account's CA that it is the cluster's.
    ///
    /// # Errors
    /// When it can't be reached or is another.
    pub async fn connect(&self) -> Result<Connection, RequestError> {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let address = format!("{host}:{}", self.port);
        let refused = |source: io::Error| RequestError::Connect {
            address: address.clone(),
            source,
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| refused(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let opened = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tls.connect(name, stream).await
        };
        let stream = timeout(TIMEOUT, opened)
            .await
            .map_err(|_| RequestError::NoAnswer)?
            .map_err(refused)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            host: address,
            token: self.account.join("token"),
        })
    }

    /// Read at each connection: a cluster may change its CA.
    fn tls(&self) -> Result<ClientConfig, RequestError> {
        let path = self.account.join("ca.crt");
        let pem = std::fs::read(&path).map_err(|source| RequestError::Account {
            path: path.clone(),
            source,
        })?;
        let unusable = |why: String| RequestError::Certificate {
            path: path.clone(),
            why,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("no PEM block of one".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// An open connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: PathBuf,
}

impl Connection {
    /// Sends JSON to a path, with the token as the file has it now: kubelet renews it.
    ///
    /// # Errors
    /// When there is no answer, or it is no.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &'static str,
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
            .header(CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(content.to_string())))?;
        let answered = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            // One that is too long tells nothing more.
            let body = Limited::new(answer.into_body(), MAX_RESPONSE).collect().await;
            Ok::<_, hyper::Error>((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        let (status, body) = timeout(TIMEOUT, answered)
            .await
            .map_err(|_| RequestError::NoAnswer)??;
        if status.is_success() {
            return Ok(());
        }
        // A `Status` of Kubernetes' has a message.
        let told: Option<Value> = serde_json::from_slice(&body).ok();
        let message = told
            .as_ref()
            .and_then(|told| told.get("message")?.as_str())
            .unwrap_or_default()
            .to_owned();
        Err(RequestError::Refused { status, message })
    }
}
