//! The accept loop: one task per HTTP connection, with a deadline for each request's head.
//!
//! A connection that becomes a WebSocket leaves this module with its socket; what it was counted as here
//! ends then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::Accepting;
use super::patient::Patient;
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::metrics::HandshakeRefusal;

/// HTTP connections at once; beyond it new ones wait in the kernel's queue. WebSockets do not count once
/// they are open.
const CONNECTIONS_MAX: usize = 8_192;

/// Bytes of a request's head at most: a long `subscriptions` and `since` list and a credential fit well.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// The pause after the machine refused a socket: mostly it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the node shuts down.
pub(crate) async fn run(listener: TcpListener, router: Router, accepting: Accepting, tasks: Tasks) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
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
                let serve = serve(socket, peer, router.clone(), accepting.clone(), tasks.shutdown());
                tasks.spawn(TaskKind::HttpConnection, async move {
                    serve.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    accepting: Accepting,
    shutdown: impl Future<Output = ()>,
) {
    // Frames are written whole; waiting for more to send with them only costs time.
    let _ = socket.set_nodelay(true);
    let served = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&served);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let timeout = *accepting.head_timeout.borrow();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(socket)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut shutdown = std::pin::pin!(shutdown);
    // Any other error is a peer that went away or sent no HTTP: hyper has answered what it could.
    tokio::select! {
        ended = &mut connection => {
            // A connection that was used and then kept for nothing ends the same way.
            if ended.is_err_and(|error| error.is_timeout()) && !served.load(Ordering::Relaxed) {
                let timeout = [HandshakeRefusal::Timeout.as_str()];
                accepting.metrics.handshakes_refused.with_label_values(&timeout).inc();
            }
        }
        () = &mut shutdown => {
            // The request that is being answered is answered; no further one is read.
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
