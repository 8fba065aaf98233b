//! The bus on real servers: what every bus must do, and what only Redis can do to it.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use hiveops_testkit::broker::RedisServer;
use parking_lot::Mutex;

use super::*;
use crate::bus::conformance::{Fixture, names};
use crate::config::BusUrl;

/// For a link to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is shared with what freezes and kills it.
type Server = Arc<Mutex<RedisServer>>;

fn start() -> Server {
    Arc::new(Mutex::new(RedisServer::start().unwrap()))
}

/// Distinct epochs.
fn epochs() -> impl Fn() -> Epoch + Send + Sync {
    || Epoch::from_bits(uuid::Uuid::now_v7().as_u64_pair().1)
}

/// A node's bus, not necessarily connected yet.
fn bus(url: &str, node: &str) -> RedisBus {
    let BusUrl::Redis(layout, servers) = url.parse().unwrap() else { panic!("{url} is no redis") };
    let (namespace, node_id) = ("test".parse().unwrap(), node.parse().unwrap());
    let config = RedisConfig { layout, servers, namespace, node_id };
    let tasks = Tasks::new(watch::channel(false).1);
    RedisBus::connect(config, &names(), Clock::start(), epochs(), &tasks)
}

async fn ready(url: &str, node: &str) -> RedisBus {
    let bus = bus(url, node);
    bus.ready(PATIENCE).await.unwrap();
    bus
}

/// Thaws a server when it is dropped.
struct Frozen(Server);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.lock().thaw().unwrap();
    }
}

pub(crate) fn single(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let server = start();
        let url = server.lock().url();
        let mut bus = ready(&url, "n1").await;
        bus.deadline = deadline;
        let stalled = Arc::clone(&server);
        let stall = Box::new(move || {
            let server = Arc::clone(&stalled);
            Box::pin(async move {
                server.lock().freeze().unwrap();
                Box::new(Frozen(server)) as Box<dyn Any + Send>
            }) as Call<'static, _>
        });
        Fixture { bus: Arc::new(bus), stall, _keep: Box::new(server) }
    })
}
