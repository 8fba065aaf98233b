//! One client's connection and the one to the server that it is led to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;

use super::Controls;
use super::counters::add;
use super::fault::Fault;
use super::pump::Pump;

/// Counts a connection as open for as long as it lives, in whatever way it ends.
pub(super) struct Open(Arc<Controls>);

impl Open {
    pub(super) fn new(controls: &Arc<Controls>) -> Self {
        add(&controls.counters.open, 1);
        Self(Arc::clone(controls))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves it to its end. `number` is its place among the connections of this proxy.
pub(super) async fn serve(client: TcpStream, number: u64, open: Open) {
    let controls = &*open.0;
    let carried = tokio::select! {
        biased;
        () = reset_wanted(controls) => {
            add(&controls.counters.resets, 1);
            reset(&client);
            return;
        }
        server = connect(controls) => server,
    };
    let Ok(server) = carried else {
        add(&controls.counters.upstream_failures, 1);
        reset(&client);
        return;
    };
    tokio::select! {
        biased;
        () = reset_wanted(controls) => {
            add(&controls.counters.resets, 1);
            reset(&client);
            reset(&server);
        }
        carried = carry(&client, &server, number, controls) => {
            // An end that failed is a failure for the other one too.
            if carried.is_err() {
                reset(&client);
                reset(&server);
            }
        }
    }
}

/// Begun only when bytes could get there.
async fn connect(controls: &Controls) -> io::Result<TcpStream> {
    let mut fault = controls.to_server.subscribe();
    // The controls outlive every connection.
    let _ = fault.wait_for(|fault| *fault != Fault::Blackhole).await;
    let upstream = *controls.upstream.borrow();
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

async fn carry(client: &TcpStream, server: &TcpStream, number: u64, controls: &Controls) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (to_server, to_client) = (controls.to_server.subscribe(), controls.to_client.subscribe());
    let counters = &controls.counters;
    // Neighbouring seeds give unlike numbers.
    let seed = controls.seed.wrapping_add(number.wrapping_mul(2));
    let up = Pump::new(client, server, to_server, &counters.to_server, seed);
    let down = Pump::new(server, client, to_client, &counters.to_client, seed.wrapping_add(1));
    tokio::try_join!(up.run(), down.run())?;
    Ok(())
}

async fn reset_wanted(controls: &Controls) {
    let (mut to_server, mut to_client) = (controls.to_server.subscribe(), controls.to_client.subscribe());
    let is_reset = |fault: &Fault| *fault == Fault::Reset;
    tokio::select! {
        _ = to_server.wait_for(is_reset) => {}
        _ = to_client.wait_for(is_reset) => {}
    }
}

/// The peer is told so when the socket is dropped.
fn reset(stream: &TcpStream) {
    // It fails only for a socket that is gone.
    let _ = stream.set_zero_linger();
}
