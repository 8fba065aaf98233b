//! One HTTP exchange with a node that ends TLS. The usual client has no TLS built in: it would look for the system's
//! authorities in every process that speaks plain HTTP to a replica, and end where a container has none.

use std::error::Error as StdError;
use std::time::Duration;

use hiveops_client::Trust;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use reqwest::{Request, StatusCode, Url};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Where an exchange ended.
pub(crate) enum Failed {
    /// Before the node had heard anything.
    Connecting(Cause),
    /// After that.
    Asking(Cause),
    /// With an answer that is longer than it may be.
    TooLong,
}

/// Sends a request and reads its whole answer.
pub(crate) async fn exchange(
    trust: &Trust,
    request: Request,
    (connecting, answering): (Duration, Duration),
    bytes_max: usize,
) -> Result<(StatusCode, String), Failed> {
    let stream = timeout(connecting, connect(trust, request.url())).await;
    let stream = stream.map_err(|late| Failed::Connecting(late.into()))?.map_err(Failed::Connecting)?;
    let answer = timeout(answering, ask(stream, request, bytes_max)).await;
    answer
        .map_err(|late| Failed::Asking(late.into()))?
        .map_err(|cause| if cause.is::<LengthLimitError>() { Failed::TooLong } else { Failed::Asking(cause) })
}

async fn connect(trust: &Trust, url: &Url) -> Result<TlsStream<TcpStream>, Cause> {
    let host = url.host_str().ok_or("the address names no host")?;
    let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())?;
    let addresses = url.socket_addrs(|| None)?;
    let socket = TcpStream::connect(&addresses[..]).await?;
    Ok(TlsConnector::from(trust.config()).connect(name, socket).await?)
}

async fn ask(
    stream: TlsStream<TcpStream>,
    request: Request,
    bytes_max: usize,
) -> Result<(StatusCode, String), Cause> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(translated(&request)?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What the node has said before it ended is read all the same.
        _ = &mut connection => answer.await,
    }
}

/// The same request as it is written into a connection.
fn translated(request: &Request) -> Result<hyper::Request<Full<Bytes>>, Cause> {
    let url = request.url();
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let mut translated = hyper::Request::builder()
        .method(request.method())
        .uri(target)
        .body(Full::new(Bytes::copy_from_slice(body)))?;
    translated.headers_mut().clone_from(request.headers());
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    translated.headers_mut().insert(HOST, HeaderValue::from_str(&authority)?);
    Ok(translated)
}
