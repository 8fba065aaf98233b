//! The accept loop: one task per HTTP connection, with a deadline for each request's head.
//!
//! A connection that becomes a WebSocket leaves this module with its socket; what it was counted as here
//! ends then.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::Accepting;
use super::patient::Patient;
use super::peers::{Counted, Peers};
use super::stream::{NotEncrypted, Stream};
use crate::hub::Working;
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::metrics::HandshakeRefusal;

/// HTTP connections at once; beyond it new ones wait in the kernel's queue. WebSockets do not count once
/// they are open.
const CONNECTIONS_MAX: usize = 2_048;

/// Connections that are worked on at once, from their first byte to their answer: what bounds the memory of
/// a storm of reconnects. The others wait, and cost little.
const WORKING_MAX: usize = 256;

/// How long a connection may hold such a place. One that sends its head by drips, waits for an answer, or is
/// kept for later requests, goes on without.
const WORKING_FOR: Duration = Duration::from_millis(100);

/// Bytes of a request's head at most: a long `subscriptions` and `since` list and a credential fit well.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// The pause after the machine refused a socket: mostly it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the node shuts down.
pub(crate) async fn run(listener: TcpListener, router: Router, accepting: Accepting, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let working = Arc::new(Semaphore::new(WORKING_MAX));
    let peers = Peers::of(CONNECTIONS_MAX);
    let mut shutdown = std::pin::pin!(tasks.shutdown());
    loop {
        // Cancel-safe: a permit that is not yet there is not lost.
        let permit = tokio::select! {
            () = &mut shutdown => return,
            permit = Arc::clone(&slots).acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        // Cancel-safe: `accept` takes no connection before it returns one.
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Some(counted) = admit(&peers, peer, &accepting) else { continue };
                let (working, router) = (Arc::clone(&working), router.clone());
                let serve = serve(socket, peer, router, accepting.clone(), working, tasks.shutdown());
                // Boxed: each layer around a future holds it twice.
                let serve = Box::pin(async move {
                    serve.await;
                    drop((permit, counted));
                });
                tasks.spawn(TaskKind::HttpConnection, serve);
            }
            Err(error) => {
                tracing::warn!(error = %error, "connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Counts a connection with those of its peer; none when there are too many, and it is closed unheard. A proxy
/// that is believed has many clients, who are told apart once it has said who they are.
fn admit(peers: &Peers, peer: SocketAddr, accepting: &Accepting) -> Option<Option<Counted>> {
    if accepting.proxies.trusts(peer.ip()) {
        return Some(None);
    }
    let per_address = accepting.views.borrow().limits.max_connections_per_address;
    let counted = peers.admit(peer.ip(), per_address);
    if counted.is_none() {
        count_refused(accepting, HandshakeRefusal::AddressWaiting);
        if peers.tell(accepting.clock.moment()) {
            tracing::warn!(
                client = %peer.ip(),
                reason = HandshakeRefusal::AddressWaiting.as_str(),
                "connections are closed unheard: their address has too many, and this is said once a minute"
            );
        }
    }
    counted.map(Some)
}

/// A connection from its first byte on. Before that it costs no more than its socket and a small task, so
/// that thousands that come at once do not hold the buffers of thousands of requests.
async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    accepting: Accepting,
    working: Arc<Semaphore>,
    shutdown: impl Future<Output = ()>,
) {
    let timeout = *accepting.head_timeout.borrow();
    let deadline = Instant::now() + timeout;
    let mut shutdown = std::pin::pin!(shutdown);
    // Cancel-safe: nothing is taken.
    let begun = tokio::select! {
        () = &mut shutdown => return,
        begun = tokio::time::timeout_at(deadline, has_begun(&socket)) => begun,
    };
    match begun {
        Ok(true) => {}
        // It went away without a word.
        Ok(false) => return,
        Err(_) => {
            count_timeout(&accepting);
            return;
        }
    }
    // Frames are written whole; waiting for more to send with them only costs time.
    let _ = socket.set_nodelay(true);
    // Whoever waits here has begun in time; the wait is ours and has its end: no place is held for long.
    // Cancel-safe: a permit that is not yet there is not lost.
    let place = tokio::select! {
        () = &mut shutdown => return,
        place = working.acquire_owned() => place,
    };
    // The semaphore is never closed.
    let Ok(place) = place else { return };
    let waited = deadline.max(Instant::now() + WORKING_FOR);
    let shaking = boxed(|| encrypted(socket, peer, &accepting, (waited, place), shutdown.as_mut()));
    let Some((stream, place)) = shaking.await else { return };
    boxed(|| answer(stream, peer, router, (accepting, timeout, waited), place, shutdown)).await;
}

/// A future that is made where it stays: one that is moved to its box has its room in the caller's as well.
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

/// Waits for a connection's first byte, and leaves it there; false when there comes none.
///
/// To ask the runtime whether the socket is readable would not do: it believes that of every new one until a
/// read has found nothing.
async fn has_begun(socket: &TcpStream) -> bool {
    socket.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0)
}

/// Shakes hands where connections are encrypted, within the time for the whole of the handshake; nothing when the
/// connection ends with it. The place is given up as by a request that takes its time.
async fn encrypted(
    socket: TcpStream,
    peer: SocketAddr,
    accepting: &Accepting,
    (deadline, place): (Instant, OwnedSemaphorePermit),
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Option<(Stream, Option<OwnedSemaphorePermit>)> {
    let mut place = Some(place);
    let Some(certificates) = &accepting.certificates else { return Some((Stream::Plain(socket), place)) };
    let mut shaking = std::pin::pin!(Stream::encrypt(socket, certificates));
    let mut late = std::pin::pin!(tokio::time::sleep_until(deadline));
    let mut working = std::pin::pin!(tokio::time::sleep(WORKING_FOR));
    let shaken = loop {
        tokio::select! {
            () = &mut shutdown => return None,
            shaken = &mut shaking => break shaken,
            () = &mut late => {
                count_timeout(accepting);
                return None;
            }
            () = &mut working, if place.is_some() => place = None,
        }
    };
    match shaken {
        Ok(stream) => Some((stream, place)),
        // As with one that sends no HTTP.
        Err(NotEncrypted::Gone) => None,
        Err(NotEncrypted::Refused(error)) => {
            count_refused(accepting, HandshakeRefusal::Tls);
            tracing::debug!(client = %peer.ip(), error = %error, "tls handshake refused");
            None
        }
    }
}

/// Answers requests until the connection ends or becomes a WebSocket.
async fn answer(
    stream: Stream,
    peer: SocketAddr,
    router: Router,
    (accepting, timeout, deadline): (Accepting, Duration, Instant),
    place: Option<OwnedSemaphorePermit>,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) {
    let served = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&served);
    let mut place = place.map(Arc::new);
    let held = place.as_ref().map(Arc::downgrade);
    let proxies = Arc::clone(&accepting.proxies);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let client = proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        // A handshake holds it until its socket is in a shard.
        if let Some(place) = held.as_ref().and_then(Weak::upgrade) {
            request.extensions_mut().insert(Working::from(place));
        }
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let working = tokio::time::sleep(WORKING_FOR);
    let first_head = tokio::time::sleep_until(deadline);
    let (mut working, mut first_head) = (std::pin::pin!(working), std::pin::pin!(first_head));
    let mut judged = false;
    loop {
        // Any other error is a peer that went away or sent no HTTP: hyper has answered what it could.
        tokio::select! {
            ended = &mut connection => {
                // A connection that was used and then kept for nothing ends the same way.
                if ended.is_err_and(|error| error.is_timeout()) && !served.load(Ordering::Relaxed) {
                    count_timeout(&accepting);
                }
                return;
            }
            () = &mut shutdown => {
                // The request that is being answered is answered; no further one is read.
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
                return;
            }
            () = &mut working, if place.is_some() => place = None,
            () = &mut first_head, if !judged => {
                judged = true;
                if !served.load(Ordering::Relaxed) {
                    count_timeout(&accepting);
                    return;
                }
            }
        }
    }
}

fn count_timeout(accepting: &Accepting) {
    count_refused(accepting, HandshakeRefusal::Timeout);
}

fn count_refused(accepting: &Accepting, refusal: HandshakeRefusal) {
    accepting.metrics.handshakes_refused.with_label_values(&[refusal.as_str()]).inc();
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::poll;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_has_begun_with_its_first_byte_and_not_before() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let mut begun = Box::pin(has_begun(&socket));
        assert!(poll!(&mut begun).is_pending(), "a silent one gets no buffers");
        client.write_all(b"G").await.unwrap();
        assert!(begun.await);
        assert!(has_begun(&socket).await, "the byte is still there");
        drop(client);
        let mut byte = [0];
        assert_eq!(socket.try_read(&mut byte).unwrap(), 1);
        assert!(!has_begun(&socket).await, "its end is no beginning");
    }
}
