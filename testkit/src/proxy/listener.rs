//! Accepts connections, except while they are to be refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Controls;
use super::connection::{self, Open};
use super::counters::add;
use super::fault::Fault;

/// Connections at most; more wait in the kernel until one ends.
const CONNECTIONS_MAX: usize = 4_096;
/// Before another attempt to listen or to accept after a failure.
const PAUSE: Duration = Duration::from_millis(10);

/// Until the proxy is dropped; its connections end with it.
pub(super) async fn run(listener: std::net::TcpListener, addr: SocketAddr, controls: Arc<Controls>) {
    let mut stopping = controls.stopping.subscribe();
    // Both sides of the select only wait; the connections are in here and end when it is dropped.
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = listen(listener, addr, &controls) => {}
    }
}

async fn listen(listener: std::net::TcpListener, addr: SocketAddr, controls: &Arc<Controls>) {
    let mut faults = (controls.to_server.subscribe(), controls.to_client.subscribe());
    let mut connections = JoinSet::new();
    let mut number = 0;
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        if refused(&mut faults) {
            if listener.take().is_some() {
                controls.counters.listening.store(false, Ordering::SeqCst);
                add(&controls.counters.listener_closings, 1);
            }
            changed(&mut faults).await;
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(addr).await.ok();
            controls.counters.listening.store(listener.is_some(), Ordering::SeqCst);
            if listener.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        tokio::select! {
            biased;
            () = changed(&mut faults) => {}
            // Cancel-safe: a connection is removed only when it is given back.
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = open.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, _)) => {
                    let open = Open::new(controls);
                    add(&controls.counters.connections, 1);
                    connections.spawn(connection::serve(client, number, open));
                    number += 1;
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

type Faults = (watch::Receiver<Fault>, watch::Receiver<Fault>);

fn refused(faults: &mut Faults) -> bool {
    let to_server = *faults.0.borrow_and_update();
    let to_client = *faults.1.borrow_and_update();
    to_server == Fault::Refuse || to_client == Fault::Refuse
}

async fn changed(faults: &mut Faults) {
    // The controls outlive this, so that neither can be closed.
    tokio::select! {
        _ = faults.0.changed() => {}
        _ = faults.1.changed() => {}
    }
}
