//! gRPC over Unix sockets: tonic's framing on hyper's connections. Must not know the calls.
//!
//! tonic's own transport is not used: for calls over Unix sockets, it would add load balancing,
//! buffers and a router.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

/// The timeout of connecting to a socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No process listens on the socket.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// The peer does not use HTTP/2.
    #[error("cannot open an HTTP/2 connection: {0}")]
    Handshake(#[from] hyper::Error),
    /// The peer rejected the call, or closed the connection.
    #[error("{} ({:?})", .0.message(), .0.code())]
    Rejected(#[from] Status),
}

/// Answers gRPC calls on a listener. Dropping the future ends every connection.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve_grpc<H, F>(listener: UnixListener, answer: H) -> io::Result<Infallible>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let response = answer(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        connections
            .spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers a call with one message.
pub async fn unary<Q, A, F>(
    request: Request<Incoming>,
    mut answer: impl FnMut(Q) -> F + Send,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Status>> + Send,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let response = answer(request.into_inner());
        async move { response.await.map(tonic::Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<A, Q>::default())
        .unary(service, request)
        .await
}

/// Answers a call with a stream of messages.
pub async fn server_streaming<Q, A, S>(
    request: Request<Incoming>,
    mut answer: impl FnMut(Q) -> S + Send,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    S: tokio_stream::Stream<Item = Result<A, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        std::future::ready(Ok(tonic::Response::new(answer(request.into_inner()))))
    });
    tonic::server::Grpc::new(ProstCodec::<A, Q>::default())
        .server_streaming(service, request)
        .await
}

/// Answers an unknown call.
pub fn unknown_call(path: &str) -> Response<Body> {
    Status::unimplemented(format!("unknown call {path}")).into_http()
}

/// A client of a gRPC service on a Unix socket.
#[derive(Debug, Clone)]
pub struct Client(hyper::client::conn::http2::SendRequest<Body>);

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    ///
    /// If no process listens, or it does not use HTTP/2.
    pub async fn connect(socket: &Path) -> Result<Self, CallError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket));
        let stream = connected.await.map_err(io::Error::from)??;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Makes a call with one request and one response.
    ///
    /// # Errors
    ///
    /// If the peer rejects the call or closes the connection.
    pub async fn unary<Q, A>(&self, call: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let path = hyper::http::uri::PathAndQuery::from_static(call);
        let response = self
            .grpc()
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        Ok(response.into_inner())
    }

    /// Makes a call with one request and a stream of responses.
    ///
    /// # Errors
    ///
    /// If the peer rejects the call or closes the connection.
    pub async fn server_streaming<Q, A>(
        &self,
        call: &'static str,
        request: Q,
    ) -> Result<tonic::Streaming<A>, CallError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let path = hyper::http::uri::PathAndQuery::from_static(call);
        let response = self
            .grpc()
            .server_streaming(tonic::Request::new(request), path, codec)
            .await?;
        Ok(response.into_inner())
    }

    fn grpc(
        &self,
    ) -> tonic::client::Grpc<
        impl tower::Service<
            Request<Body>,
            Response = Response<Incoming>,
            Error = hyper::Error,
            Future = impl Future<Output = Result<Response<Incoming>, hyper::Error>>,
        >,
    > {
        let sender = self.0.clone();
        let service = tower::service_fn(move |request| sender.clone().send_request(request));
        tonic::client::Grpc::with_origin(service, Uri::from_static("http://localhost"))
    }
}
