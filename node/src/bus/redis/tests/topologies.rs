//! Sentinels and clusters.

use std::sync::Weak;

use hiveops_testkit::broker::{RedisCluster, RedisSentinels};

use super::*;

type Cluster = Arc<Mutex<RedisCluster>>;

fn cluster_url(cluster: &RedisCluster) -> String {
    let addresses: Vec<String> = cluster.servers.iter().map(|server| server.addr().to_string()).collect();
    format!("redis+cluster://{}", addresses.join(","))
}

/// Stops every server of a cluster until it is dropped.
struct AllFrozen(Cluster);

impl AllFrozen {
    fn freeze(cluster: &Cluster) -> Self {
        cluster.lock().servers.iter_mut().for_each(|server| server.freeze().unwrap());
        Self(Arc::clone(cluster))
    }
}

impl Drop for AllFrozen {
    fn drop(&mut self) {
        self.0.lock().servers.iter_mut().for_each(|server| server.thaw().unwrap());
    }
}

/// A cluster takes seconds to come up, so that rules that run at the same time share one; each has a
/// namespace, and stops it for a moment at most.
pub(crate) fn cluster(deadline: Duration) -> Call<'static, Fixture> {
    static SHARED: Mutex<Weak<Mutex<RedisCluster>>> = Mutex::new(Weak::new());
    static FIXTURES: AtomicU64 = AtomicU64::new(0);
    let cluster = {
        let mut shared = SHARED.lock();
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Mutex::new(RedisCluster::start().unwrap()));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    };
    Box::pin(async move {
        let url = cluster_url(&cluster.lock());
        let namespace = format!("test-{}", FIXTURES.fetch_add(1, Ordering::Relaxed));
        let mut bus = connect(&url, &namespace, "n1");
        bus.ready(PATIENCE).await.unwrap();
        bus.deadline = deadline;
        let stalled = Arc::clone(&cluster);
        let stall = Box::new(move || {
            let cluster = Arc::clone(&stalled);
            Box::pin(async move { Box::new(AllFrozen::freeze(&cluster)) as Box<dyn Any + Send> })
                as Call<'static, _>
        });
        Fixture { bus: Arc::new(bus), stall, _keep: Box::new(cluster) }
    })
}

#[tokio::test]
async fn after_a_failover_all_nodes_go_on_in_a_new_epoch() {
    let mut set = RedisSentinels::start().unwrap();
    let sentinels: Vec<String> = set.sentinels.iter().map(|server| server.addr().to_string()).collect();
    let url = format!("redis+sentinel://{}/{}", sentinels.join(","), RedisSentinels::NAME);
    let (one, two) = (ready(&url, "n1").await, ready(&url, "n2").await);
    let (mut first, mut second) = (Reader::open(&one).await, Reader::open(&two).await);
    publish_all(&one, (0..20).map(|n| update(0, &format!("k{n}"), n))).await;
    in_time(join_all([first.until(0, 20), second.until(0, 20)])).await;
    let old = first.log(0).epoch.clone();
    let master = set.master().unwrap();
    set.server(master).unwrap().kill().unwrap();
    set.wait_failover(master).unwrap();
    let new = renewed(&mut first, 0, &old).await;
    assert_eq!(renewed(&mut second, 0, &old).await, new);
    let left = first.log(0).head;
    assert_eq!((second.log(0).head, first.log(0).values.len() as u64), (left, left), "the same on both");
    let ack = publish_at_last(&two, with_key("k", update(0, "new", 1))).await;
    assert_eq!((ack.seq, &ack.epoch), (left + 1, &new));
    assert_eq!(in_time(first.until(0, left + 1)).await.epoch, new);
    // The old master is a replica when it is back, and nobody follows it.
    set.server(master).unwrap().restart().unwrap();
    set.wait_in_step().unwrap();
    assert_eq!(one.publish(update(0, "new", 2)).await.unwrap().epoch, new);
}

#[tokio::test]
async fn a_log_of_another_server_goes_on_while_one_is_gone() {
    let mut cluster = RedisCluster::start().unwrap();
    for server in &cluster.servers {
        server.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    }
    // A namespace whose logs are on different servers.
    let owner = |cluster: &RedisCluster, namespace: &str, sub: usize| {
        cluster.owner(&format!("{{{namespace}:{}}}", names()[sub])).unwrap()
    };
    let apart = |number: &u32| {
        let namespace = format!("n{number}");
        owner(&cluster, &namespace, 0) != owner(&cluster, &namespace, 1)
    };
    let namespace = format!("n{}", (0..100).find(apart).unwrap());
    let gone = owner(&cluster, &namespace, 0);
    let bus = connect(&cluster_url(&cluster), &namespace, "n1");
    bus.ready(PATIENCE).await.unwrap();
    let mut reader = Reader::open(&bus).await;
    let epoch = bus.publish(update(0, "a", 1)).await.unwrap().epoch;
    bus.publish(update(1, "a", 1)).await.unwrap();
    cluster.servers[gone].kill().unwrap();
    assert!(matches!(bus.publish(update(0, "a", 2)).await, Err(PublishError::Unavailable(_))));
    assert_eq!(publish_at_last(&bus, with_key("k", update(1, "a", 2))).await.seq, 2);
    cluster.servers[gone].restart().unwrap();
    let ack = publish_at_last(&bus, with_key("k", update(0, "a", 3))).await;
    assert_eq!((ack.seq, ack.epoch), (2, epoch));
    assert_eq!(in_time(reader.until(0, 2)).await.resets, 1);
}

#[tokio::test]
async fn a_log_that_moves_to_another_server_goes_on() {
    let cluster = RedisCluster::start().unwrap();
    let bus = connect(&cluster_url(&cluster), "test", "n1");
    bus.ready(PATIENCE).await.unwrap();
    let mut reader = Reader::open(&bus).await;
    publish_all(&bus, (0..5).map(|n| update(0, "a", n))).await;
    let epoch = in_time(reader.until(0, 5)).await.epoch.clone();
    let key = "hiveops:{test:agents}:meta";
    let from = &cluster.servers[cluster.owner(key).unwrap()];
    let to = cluster.servers.iter().find(|server| server.addr() != from.addr()).unwrap();
    let [from_id, to_id] = [from, to].map(|server| server.command(&["CLUSTER", "MYID"]).unwrap());
    let slot = from.command(&["CLUSTER", "KEYSLOT", key]).unwrap();
    to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).unwrap();
    from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).unwrap();
    let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).unwrap();
    let port = to.addr().port().to_string();
    let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    migrate.extend(keys.lines());
    assert_eq!(from.command(&migrate).unwrap(), "OK");
    for server in [to, from] {
        server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).unwrap();
    }
    let ack = publish_at_last(&bus, with_key("k", update(0, "a", 6))).await;
    assert_eq!((ack.seq, ack.epoch), (6, epoch));
    assert_eq!(in_time(reader.until(0, 6)).await.resets, 1);
}

#[tokio::test]
async fn a_cluster_delivers_what_nodes_and_publishers_say() {
    let cluster = RedisCluster::start().unwrap();
    let url = cluster_url(&cluster);
    let (one, two) = (ready(&url, "n1").await, ready(&url, "n2").await);
    let mut reader = Reader::open(&two).await;
    let mut intake = two.intake().unwrap();
    one.tell(Signal::from("hello")).await.unwrap();
    let told = async {
        loop {
            if let Some(crate::bus::BusEvent::Told(signal)) = reader.step().await {
                return signal;
            }
        }
    };
    assert_eq!(&*in_time(told).await, "hello");
    // Whichever server a publisher knows; it hears nothing of who listens elsewhere.
    let lease = "hiveops:{test}:intake";
    let owner = &cluster.servers[cluster.owner(lease).unwrap()];
    wait_for("a listener", || owner.command(&["PUBSUB", "NUMPAT"]).unwrap() == "1").await;
    for server in &cluster.servers {
        server.command(&["PUBLISH", "agent_events:1", "{}"]).unwrap();
        assert_eq!(in_time(intake.next()).await.unwrap().subscription, "agents");
    }
}
