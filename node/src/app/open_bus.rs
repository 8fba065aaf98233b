//! Makes the bus that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{Epoch, SubscriptionName};

use crate::bus::embedded::{EmbeddedBus, StoreError};
use crate::bus::nats::{NatsBus, Settings};
use crate::bus::redis::{RedisBus, RedisConfig};
use crate::bus::{Bus, Unavailable};
use crate::config::{BusUrl, Config};
use crate::tasks::Tasks;
use crate::time::Clock;

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot use the bus at {url} (HIVEOPS_BUS)")]
    Broker {
        url: String,
        #[source]
        source: Unavailable,
    },
}

/// Opens the bus. A broker that is not there yet is waited for, at most `patience`.
pub(super) async fn open(
    config: &Config,
    names: &[SubscriptionName],
    clock: Clock,
    tasks: &Tasks,
    patience: Duration,
) -> Result<Arc<dyn Bus>, OpenError> {
    let broker = |source| OpenError::Broker { url: config.bus.to_string(), source };
    match &config.bus {
        BusUrl::Embedded => {
            Ok(Arc::new(EmbeddedBus::open(names, config.data_dir.as_deref(), clock, new_epoch)?))
        }
        BusUrl::Nats(servers) => {
            let settings = Settings {
                servers: servers.clone(),
                files: config.bus_files.clone(),
                replicas: config.bus_replicas,
                namespace: config.namespace.clone(),
                node_id: config.node_id.clone(),
            };
            let opened = NatsBus::open(settings, names, clock, tasks, patience).await;
            Ok(Arc::new(opened.map_err(broker)?))
        }
        BusUrl::Redis(layout, servers) => {
            let settings = RedisConfig {
                layout: layout.clone(),
                servers: servers.clone(),
                namespace: config.namespace.clone(),
                node_id: config.node_id.clone(),
            };
            let bus = RedisBus::connect(settings, names, clock, new_epoch, tasks);
            bus.ready(patience).await.map_err(broker)?;
            Ok(Arc::new(bus))
        }
    }
}

/// A log that begins now: the time and 62 random bits, mixed, are as good as unique.
fn new_epoch() -> Epoch {
    let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
    Epoch::from_bits(high ^ low.rotate_left(32))
}
