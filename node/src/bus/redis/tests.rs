//! The bus on real servers: what every bus must do, and what only Redis can do to it.

mod broken;
mod lost;
mod taken_in;
mod topologies;

use std::any::Any;

use hiveops_testkit::broker::{RedisOptions, RedisServer};

use super::*;
use crate::bus::conformance::{
    Fixture, Reader, in_time, names, occurrence, publish_all, seen_now, update, wait_for, with_key,
};
use crate::config::BusUrl;

pub(crate) use self::topologies::cluster;

/// Longer than a busy machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is shared with what freezes it.
type Server = Arc<Mutex<RedisServer>>;

/// Distinct epochs.
fn epochs() -> impl Fn() -> Epoch + Send + Sync {
    || Epoch::from_bits(uuid::Uuid::now_v7().as_u64_pair().1)
}

/// A node's bus that need not be connected yet.
fn connect(url: &str, namespace: &str, node: &str) -> RedisBus {
    let Ok(BusUrl::Redis(layout, servers)) = url.parse() else { panic!("{url} is no redis") };
    let (namespace, node_id) = (namespace.parse().unwrap(), node.parse().unwrap());
    let config = RedisConfig { layout, servers, namespace, node_id };
    let tasks = Tasks::new(watch::channel(false).1);
    RedisBus::connect(config, &names(), Clock::start(), epochs(), &tasks)
}

async fn ready(url: &str, node: &str) -> RedisBus {
    let bus = connect(url, "test", node);
    bus.ready(PATIENCE).await.unwrap();
    bus
}

/// Publishes until the bus takes it: what a publisher does that tries again.
async fn publish_at_last(bus: &RedisBus, publish: Publish) -> Ack {
    in_time(async {
        loop {
            match bus.publish(publish.clone()).await {
                Ok(ack) => return ack,
                Err(PublishError::Timeout | PublishError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

/// Reads on until the log has another epoch.
async fn renewed(reader: &mut Reader, sub: usize, old: &Epoch) -> Epoch {
    in_time(async {
        while reader.log(sub).epoch == *old {
            reader.step().await.expect("the bus is up");
        }
    })
    .await;
    reader.log(sub).epoch.clone()
}

/// Thaws a server when it is dropped.
struct Frozen(Server);

impl Frozen {
    fn freeze(server: &Server) -> Self {
        server.lock().freeze().unwrap();
        Self(Arc::clone(server))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.lock().thaw().unwrap();
    }
}

pub(crate) fn single(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let server = Arc::new(Mutex::new(RedisServer::start().unwrap()));
        let url = server.lock().url();
        let mut bus = ready(&url, "n1").await;
        bus.deadline = deadline;
        let stalled = Arc::clone(&server);
        let stall = Box::new(move || {
            let server = Arc::clone(&stalled);
            Box::pin(async move { Box::new(Frozen::freeze(&server)) as Box<dyn Any + Send> })
                as Call<'static, _>
        });
        Fixture { bus: Arc::new(bus), stall, _keep: Box::new(server) }
    })
}

#[tokio::test]
async fn what_a_node_says_reaches_every_node() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let mut readers = [Reader::open(&one).await, Reader::open(&two).await];
    one.tell(Signal::from(r#"{"x":1}"#)).await.unwrap();
    for reader in &mut readers {
        let said = in_time(async {
            loop {
                if let Some(crate::bus::BusEvent::Told(signal)) = reader.step().await {
                    return signal;
                }
            }
        });
        assert_eq!(&*said.await, r#"{"x":1}"#);
    }
}

#[tokio::test]
async fn databases_and_namespaces_have_logs_of_their_own_and_a_password_is_used() {
    let options = RedisOptions { password: Some("s3cret".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start_with(options).unwrap();
    let other = format!("{}/3", server.url());
    let (zero, three) = (ready(&server.url(), "n1").await, ready(&other, "n1").await);
    let apart = connect(&server.url(), "apart", "n1");
    apart.ready(PATIENCE).await.unwrap();
    let mut readers = [Reader::open(&zero).await, Reader::open(&three).await, Reader::open(&apart).await];
    for n in 1..=3 {
        for bus in [&zero, &three, &apart] {
            assert_eq!(bus.publish(update(0, "a", n)).await.unwrap().seq, n as u64);
        }
    }
    for reader in &mut readers {
        let log = in_time(reader.until(0, 3)).await;
        assert_eq!((log.live.as_slice(), log.resets), (&[1, 2, 3][..], 1));
    }
    let counts = [&zero, &three, &apart].map(|bus| bus.shared.counts.reconnects.load(Ordering::Relaxed));
    assert_eq!(counts, [0; 3], "nobody heard what was not for him");
    let wrong = connect(&server.url().replace("s3cret", "guess"), "test", "n2");
    assert!(wrong.ready(Duration::from_millis(300)).await.is_err());
}

#[tokio::test]
async fn a_broker_that_comes_later_is_waited_for() {
    let mut server = RedisServer::start().unwrap();
    server.kill().unwrap();
    let bus = connect(&server.url(), "test", "n1");
    assert!(bus.ready(Duration::from_millis(100)).await.is_err());
    assert!(matches!(bus.publish(update(0, "a", 1)).await, Err(PublishError::Unavailable(_))));
    server.restart().unwrap();
    bus.ready(PATIENCE).await.unwrap();
    assert_eq!(bus.publish(update(0, "a", 1)).await.unwrap().seq, 1);
}
