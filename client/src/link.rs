//! One attempt to connect, and what came of it.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, http};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::options::InvalidOptions;
use crate::reconnect::Ended;
use crate::tls::Trust;

/// The largest message that is read: a publication's data may have 1 MiB where the limits allow it, and its
/// frame has members besides.
const MESSAGE_MAX: usize = 2 * 1024 * 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options make none possible.
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    /// The node, or what stands in front of it, answered with something else than a WebSocket.
    #[error("the handshake was refused with HTTP {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// From the header `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The network, or the handshake, failed.
    #[error("cannot connect")]
    Transport(#[source] Box<Error>),
}

impl ConnectError {
    /// The same, as the reconnect policy sees it; `None` when trying again is pointless.
    pub(crate) fn ended(&self) -> Option<Ended> {
        match self {
            Self::Options(_) => None,
            Self::Refused { status, retry_after } => {
                Some(Ended::Refused { status: *status, retry_after: *retry_after })
            }
            Self::Timeout(_) | Self::Transport(_) => Some(Ended::Lost),
        }
    }
}

/// Connects once.
pub(crate) async fn connect(
    request: Request,
    trust: Option<&Trust>,
    timeout: Duration,
) -> Result<Socket, ConnectError> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    let connector = trust.map_or(Connector::Plain, |trust| Connector::Rustls(trust.config()));
    // Nagle would hold back a small message behind one that is not acknowledged yet.
    let attempt = connect_async_tls_with_config(request, Some(config), true, Some(connector));
    match tokio::time::timeout(timeout, attempt).await {
        Err(_) => Err(ConnectError::Timeout(timeout)),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => Err(ConnectError::Refused {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers()),
        }),
        Ok(Err(error)) => Err(ConnectError::Transport(Box::new(error))),
    }
}

/// Whole seconds only: nodes do not send dates.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
