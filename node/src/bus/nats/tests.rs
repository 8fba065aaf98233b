//! The NATS bus against a real server: the rules of every bus, and what only a server that fails shows.

mod broken;
mod cluster;
mod taken_in;

use std::any::Any;

use hiveops_testkit::broker::NatsServer;

use super::*;
use crate::bus::conformance::{Fixture, names};
use crate::config::BusUrl;

/// A server that can be stopped while its bus is used.
type Shared = Arc<Mutex<NatsServer>>;

/// Lets the server go on when it is dropped.
struct Frozen(Shared);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.lock().thaw().unwrap();
    }
}

fn settings(url: &str) -> Settings {
    let mut bus: BusUrl = url.parse().unwrap();
    bus.hide_token();
    let BusUrl::Nats(servers) = bus else { panic!("{url} is no NATS") };
    Settings {
        servers,
        files: BusFiles::default(),
        replicas: 1,
        namespace: "test".parse().unwrap(),
        node_id: NodeId::new("n1").unwrap(),
    }
}

/// Longer than a busy machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open_with(
    settings: Settings,
    patience: Duration,
) -> Result<(NatsBus, watch::Sender<bool>), Unavailable> {
    let (stop, stopped) = watch::channel(false);
    let tasks = Tasks::new(stopped);
    let bus = NatsBus::open(settings, &names(), Clock::start(), &tasks, patience).await?;
    Ok((bus, stop))
}

async fn open(url: &str) -> (NatsBus, watch::Sender<bool>) {
    open_with(settings(url), PATIENCE).await.unwrap()
}

/// Publishes until the bus takes it: what a publisher does that tries again.
async fn publish_at_last(bus: &NatsBus, publish: Publish) -> Ack {
    let stored = async {
        loop {
            if let Ok(ack) = bus.publish(publish.clone()).await {
                return ack;
            }
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("the bus comes back")
}

/// A client beside the bus: an operator, or somebody who may do too much.
async fn outsider(url: &str) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(url).await.unwrap())
}

pub(crate) fn server(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let server = Arc::new(Mutex::new(NatsServer::start().unwrap()));
        let url = server.lock().url();
        let (mut bus, stop) = open(&url).await;
        bus.set_deadline(deadline);
        let shared = Arc::clone(&server);
        let stall = Box::new(move || {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                shared.lock().freeze().unwrap();
                Box::new(Frozen(shared)) as Box<dyn Any + Send>
            }) as Call<'static, _>
        });
        Fixture { bus: Arc::new(bus), stall, _keep: Box::new((server, stop)) }
    })
}
