//! The accept loop: one task per connection, with a deadline for each request's head.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

/// Nodes hold one stream each, and replicas and people a few connections more.
const CONNECTIONS_MAX: usize = 4_096;
const HEAD_BYTES_MAX: usize = 16 * 1_024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the machine refused a socket: mostly it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests that are being answered when the replica stops have this long.
const END_MAX: Duration = Duration::from_secs(2);

/// Serves until the replica stops.
pub(crate) async fn run(listener: TcpListener, router: Router, mut stopping: Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Cancel-safe: neither a permit nor a connection is lost when another arm comes first.
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((socket, permit)) => {
                let serve = serve(socket, router.clone(), stopping.clone());
                connections.spawn(async move {
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
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(END_MAX, ended).await.is_err() {
        tracing::warn!("requests were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (socket, _) = listener.accept().await?;
    Ok((socket, permit))
}

/// Until the replica stops.
pub(super) async fn stopped(stopping: &mut Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn serve(socket: TcpStream, router: Router, mut stopping: Receiver<bool>) {
    // Messages are written whole; waiting for more to send with them only costs time.
    let _ = socket.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // An error is a peer that went away or sent no HTTP: hyper has answered what it could.
    tokio::select! {
        _ = &mut connection => {}
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
