//! Leaves a master that is none any more. Sentinels tell it to become a replica some seconds after they have
//! chosen another, and until then it acknowledges what nobody will ever see.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::live::Live;
use super::{Port, Shared};
use crate::per_sub::PerSub;
use crate::telemetry::Chain;

/// Time between two questions to the sentinels.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Runs until the bus is shut down.
pub(super) async fn watch(
    shared: Arc<Shared>,
    logs: Arc<PerSub<Port>>,
    notices: watch::Receiver<Option<Arc<Live>>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let asking = async {
            ticks.tick().await;
            // A set has one master, whatever the slot.
            shared.topology.owner(0).await
        };
        let master = tokio::select! {
            // An error means that the bus is gone.
            _ = stop.wait_for(|stop| *stop) => return,
            master = asking => master,
        };
        match master {
            Ok(master) => {
                let links = logs.values().map(|port| &port.up).chain([&notices]);
                for live in links.filter_map(|link| link.borrow().clone()) {
                    if live.address != master {
                        live.fail("another server is the master");
                    }
                }
            }
            // No reason to leave a server that answers.
            Err(fault) => {
                tracing::debug!(node_id = shared.node_id, error = %Chain(&fault), "no sentinel answers")
            }
        }
    }
}
