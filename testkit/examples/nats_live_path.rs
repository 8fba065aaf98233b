//! Compares two ways of following a JetStream log live: what the server republishes on a plain
//! subscription, and an ordered consumer. `cargo run --release -p hiveops-testkit --example nats_live_path`
//!
//! Both follow the same stream at the same time on connections of their own, so that one run measures both:
//! a steady load on many keys for latency and processor time, and bursts on one key, of which the stream
//! keeps eight, for what a follower does not get to see. Prints one line of JSON per way and load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, Stream};
use futures_util::{Stream as Messages, StreamExt};
use hiveops_testkit::broker::NatsServer;
use tokio::sync::mpsc;

const STEADY: usize = 2_000;
const STEADY_EVERY: Duration = Duration::from_millis(5);
const BURSTS: usize = 40;
const BURST: usize = 50;
const PAYLOAD_BYTES: usize = 256;
/// Followers of each way: the nodes of a cluster.
const FOLLOWERS: usize = 3;
const PER_KEY: i64 = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Republished,
    Ordered,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Republished => "republish",
            Self::Ordered => "ordered_consumer",
        }
    }
}

/// One message as a follower saw it: when it was published, in microseconds since the start, and when it
/// came.
struct Seen {
    seq: u64,
    took: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    for way in [Way::Republished, Way::Ordered, Way::Ordered, Way::Republished] {
        let mut server = NatsServer::start()?;
        run(&mut server, way).await?;
    }
    Ok(())
}

/// One way alone on a server of its own, so that the server's processor time is that way's.
async fn run(server: &mut NatsServer, way: Way) -> Result<()> {
    let began = Instant::now();
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    let stream = context
        .create_stream(Config {
            name: "log".to_owned(),
            subjects: vec!["u.>".to_owned()],
            max_messages_per_subject: PER_KEY,
            discard: DiscardPolicy::Old,
            republish: (way == Way::Republished).then(|| Republish {
                source: "u.>".to_owned(),
                destination: "l.>".to_owned(),
                headers_only: false,
            }),
            ..Config::default()
        })
        .await?;
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        followers.push(follow(server, way, began).await?);
    }
    let cpu = cpu_ticks(server.pid())?;
    let payload = |at: Instant| {
        let text = format!("{:<PAYLOAD_BYTES$}", at.duration_since(began).as_micros());
        bytes::Bytes::from(text)
    };
    let mut ticks = tokio::time::interval(STEADY_EVERY);
    for n in 0..STEADY {
        ticks.tick().await;
        context.publish(format!("u.k{}", n % 500), payload(Instant::now())).await?.await?;
    }
    report(server, way, "steady", &mut followers, &stream, STEADY, cpu).await?;
    let cpu = cpu_ticks(server.pid())?;
    for _ in 0..BURSTS {
        let mut acks = Vec::new();
        for _ in 0..BURST {
            acks.push(context.publish("u.hot", payload(Instant::now())).await?);
        }
        for ack in acks {
            ack.await?;
        }
    }
    report(server, way, "burst_on_one_key", &mut followers, &stream, BURSTS * BURST, cpu).await
}

/// Follows on a connection of its own, as a node does.
async fn follow(server: &NatsServer, way: Way, began: Instant) -> Result<mpsc::Receiver<Seen>> {
    let client = async_nats::connect(server.url()).await?;
    let (seen, receiver) = mpsc::channel(100_000);
    match way {
        Way::Republished => {
            let messages = client.subscribe("l.>").await?.map(|message| {
                let seq = message.headers.as_ref().and_then(|headers| headers.get("Nats-Sequence"));
                Some((seq?.as_str().parse().ok()?, message.payload))
            });
            client.flush().await?;
            drive(messages, seen, began);
        }
        Way::Ordered => {
            let context = async_nats::jetstream::new(client);
            let consumer = context.get_stream("log").await?.create_consumer(OrderedConfig::default()).await?;
            let messages = consumer.messages().await?.map(|message| {
                let message = message.ok()?;
                Some((message.info().ok()?.stream_sequence, message.message.payload))
            });
            drive(messages, seen, began);
        }
    }
    Ok(receiver)
}

#[expect(clippy::disallowed_methods, reason = "a measurement outside the node has no task list")]
fn drive(
    messages: impl Messages<Item = Option<(u64, bytes::Bytes)>> + Send + 'static,
    seen: mpsc::Sender<Seen>,
    began: Instant,
) {
    tokio::spawn(async move {
        let mut messages = Box::pin(messages);
        while let Some(message) = messages.next().await {
            let now = began.elapsed();
            let Some((seq, payload)) = message else { continue };
            let sent = std::str::from_utf8(&payload).ok().and_then(|text| text.trim_end().parse().ok());
            let took = now.saturating_sub(Duration::from_micros(sent.unwrap_or(0)));
            if seen.send(Seen { seq, took }).await.is_err() {
                return;
            }
        }
    });
}

/// Takes what the followers saw up to the head of the stream.
async fn report(
    server: &mut NatsServer,
    way: Way,
    load: &str,
    followers: &mut [mpsc::Receiver<Seen>],
    stream: &Stream,
    published: usize,
    cpu_before: u64,
) -> Result<()> {
    let head = stream.get_info().await?.state.last_sequence;
    let (mut took, mut missed) = (Vec::new(), 0);
    for follower in followers.iter_mut() {
        let mut count = 0;
        loop {
            let seen = tokio::time::timeout(Duration::from_secs(10), follower.recv()).await;
            let seen = seen.context("a follower does not reach the head")?.context("a follower ended")?;
            count += 1;
            took.push(seen.took);
            if seen.seq >= head {
                break;
            }
        }
        missed += published - count;
    }
    let ticks = cpu_ticks(server.pid())? - cpu_before;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{{\"way\":\"{}\",\"load\":\"{load}\",\"published\":{published},\"followers\":{},\"p50_us\":{},\"p99_us\":{},\
         \"missed_by_followers\":{missed},\"server_cpu_ms\":{}}}",
        way.as_str(),
        followers.len(),
        at(0.5),
        at(0.99),
        ticks * 10
    );
    Ok(())
}

/// Processor time of a process, in hundredths of a second.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok());
    Ok(field(11).context("no user time")? + field(12).context("no system time")?)
}
