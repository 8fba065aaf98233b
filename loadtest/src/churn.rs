//! `churn`: everybody loses the connection and comes back at the same time. Counts who is served, how long
//! that takes, and what it does to the server's memory. With `--missed` the clients say where they stood, and
//! so many publications are replayed to each.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Outcome;
use crate::clock::{Clock, Deadline};
use crate::connection::{Discard, Receiver};
use crate::fanout::Place;
use crate::http::Client;
use crate::load::{CLOSE_TIMEOUT, Server, grown};
use crate::marker::{Marker, Padding};
use crate::names::{Channels, Choice};
use crate::options::{CONNECTIONS_MAX, seconds};
use crate::peer::{Dialect, accepted};
use crate::process::Pid;
use crate::rounds::two_places;
use crate::swarm::Swarm;
use crate::tally::Latency;

/// Between two readings of the server's memory.
const MEMORY_EVERY: Duration = Duration::from_millis(50);
/// Bytes of what is published between the two connections.
const DATA_BYTES: usize = 256;
/// The longest time that is told apart from longer ones.
const TIME_MAX_NANOS: u64 = 3_600_000_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    choice: Choice,
    /// WebSocket connections
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Connections on their way at once when they come back [default: all]
    #[arg(long, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    at_once: Option<u32>,
    /// Publications that each missed and asks for; 0: they do not say where they stood
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=300))]
    missed: u32,
    /// Silence to wait for before memory is read
    #[arg(long, default_value = "2", value_parser = seconds)]
    settle_seconds: Duration,
    /// How long the first connecting, and then the return, may take
    #[arg(long, default_value = "60", value_parser = seconds)]
    timeout_seconds: Duration,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    at_once: u32,
    missed: u32,
    /// Connections that came back, and those that did not.
    served: usize,
    failed: u64,
    seconds_to_serve_all: f64,
    serve_us: Latency,
    recovered: u64,
    replayed_expected: u64,
    replayed: u64,
    rss_steady_bytes: Option<u64>,
    rss_peak_bytes: Option<u64>,
    rss_after_bytes: Option<u64>,
    rss_steady_bytes_per_connection: Option<i64>,
    peak_to_steady: Option<f64>,
    server_cpu_us_per_connection: Option<f64>,
    client_cpu_us_per_connection: f64,
}

/// Who is back, and with what.
struct Returns<'a> {
    began: u64,
    times: Histogram<u64>,
    recovered: u64,
    replayed: u64,
    server: &'a Server,
    clock: Clock,
    memory_at: u64,
    rss_peak: Option<u64>,
}

impl Returns<'_> {
    /// Reads the memory when it is time to.
    fn look(&mut self, now: u64) {
        if now >= self.memory_at {
            self.memory_at = now + MEMORY_EVERY.as_nanos() as u64;
            // A reading that fails is one fewer; the last one, after the run, says why.
            self.rss_peak = self.rss_peak.max(self.server.rss_bytes().ok().flatten());
        }
    }
}

impl Receiver for Returns<'_> {
    fn message(&mut self, _connection: usize, message: &[u8], _at: u64) {
        self.replayed += u64::from(is_replayed(message));
        let now = self.clock.nanos();
        self.look(now);
    }

    fn opened(&mut self, _connection: usize, recovered: bool, at: u64) {
        self.recovered += u64::from(recovered);
        self.times.saturating_record(at.saturating_sub(self.began));
        self.look(at);
    }
}

/// The member stands before the data.
fn is_replayed(message: &[u8]) -> bool {
    const REPLAYED: &[u8] = b"\"replayed\":true";
    let head = &message[..message.len().min(512)];
    head.windows(REPLAYED.len()).any(|window| window == REPLAYED)
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let clock = Clock::start();
    let channels = arguments.choice.channels()?;
    let server = arguments.place.server(arguments.connections)?;
    ensure!(server.publish.dialect == Dialect::Contract, "only servers of the contract know positions");
    let rss_cold = server.rss_bytes()?;
    let handshakes = channels.handshakes(&server.socket, Dialect::Contract, "", &server.headers);
    let mut swarm = Swarm::new(server.socket.resolve()?, handshakes, clock)?;
    let count = arguments.connections as usize;
    let deadline = Deadline::after(arguments.timeout_seconds);
    swarm.open(count, deadline, &mut Discard)?;
    ensure!(swarm.open_count() == count, "only {} of {count} connections opened", swarm.open_count());
    swarm.settle(arguments.settle_seconds, deadline, &mut Discard)?;
    let steady = server.rss_bytes()?;

    let since = since(arguments, &server, &channels)?;
    // What was published is delivered, so that nobody has more than the position says.
    swarm.settle(arguments.settle_seconds, Deadline::after(arguments.timeout_seconds), &mut Discard)?;
    swarm.set_handshakes(channels.handshakes(&server.socket, Dialect::Contract, &since, &server.headers));
    let at_once = arguments.at_once.unwrap_or(arguments.connections);
    swarm.set_opening_max(at_once as usize);

    let (cpu_before, own_before) = (server.cpu_times()?, Pid::own().cpu_time()?);
    let began = clock.nanos();
    let times = Histogram::new_with_max(TIME_MAX_NANOS, 3).context("cannot make the histogram of times")?;
    let mut returns = Returns {
        began,
        times,
        recovered: 0,
        replayed: 0,
        server: &server,
        clock,
        memory_at: 0,
        rss_peak: None,
    };
    swarm.cut();
    swarm.open(count, Deadline::after(arguments.timeout_seconds), &mut returns)?;
    let took = Duration::from_nanos(clock.nanos() - began);
    swarm.settle(arguments.settle_seconds, Deadline::after(arguments.timeout_seconds), &mut returns)?;
    let cpu = Server::cpu_between(&cpu_before, &server.cpu_times()?);
    let own = Pid::own().cpu_time()?.since(&own_before);
    let after = server.rss_bytes()?;
    let peak = returns.rss_peak.max(after);
    let served = swarm.open_count();
    swarm.failures().print();
    let each = |time: Duration| (time.as_nanos() as f64 / count as f64).round() / 1000.0;
    let report = Report {
        test: "churn",
        connections: arguments.connections,
        at_once,
        missed: arguments.missed,
        served,
        failed: swarm.failures().total(),
        seconds_to_serve_all: two_places(took.as_secs_f64()),
        serve_us: Latency::of(&returns.times),
        recovered: returns.recovered,
        replayed_expected: u64::from(arguments.missed) * (count * channels.per_connection()) as u64,
        replayed: returns.replayed,
        rss_steady_bytes: steady,
        rss_peak_bytes: peak,
        rss_after_bytes: after,
        rss_steady_bytes_per_connection: grown(rss_cold, steady).map(|grown| grown / count as i64),
        peak_to_steady: peak.zip(steady).map(|(peak, steady)| two_places(peak as f64 / steady as f64)),
        server_cpu_us_per_connection: cpu.map(each),
        client_cpu_us_per_connection: each(own),
    };
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
    report.print();
    println!("{}", serde_json::to_string(&report)?);
    let whole = report.replayed == report.replayed_expected
        && (arguments.missed == 0 || report.recovered == served as u64);
    let clean = report.failed == 0 && served == count && whole;
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

/// Publishes to every subscription what is to be missed, and says from where on: a part of a query.
fn since(arguments: &Arguments, server: &Server, channels: &Channels) -> anyhow::Result<String> {
    if arguments.missed == 0 {
        return Ok(String::new());
    }
    let mut client = Client::new(&server.publish, &server.headers)?;
    let mut positions = Vec::new();
    for (name, kind) in channels.names.iter().zip(&channels.types) {
        let path = format!("{}?subscription={name}&message_type={kind}", hiveops_proto::path::WS_BROADCAST);
        let mut first = None;
        for seq in 0..=arguments.missed {
            let nanos = Clock::start().nanos();
            let run = u64::from(std::process::id());
            let data = Marker { run, seq, nanos }.data(None, DATA_BYTES, Padding::Plain);
            let reply = accepted(client.post(&path, &data)?)?;
            first.get_or_insert(format!("{name}:{}:{}", reply.epoch, reply.seq));
        }
        positions.extend(first);
    }
    // A server looks only at the positions of what is joined.
    Ok(format!("&since={}", positions.join(",")))
}

impl Report {
    fn print(&self) {
        println!(
            "churn: {} of {} connections came back in {} s, {} of them where they stood, {} frames replayed",
            self.served, self.connections, self.seconds_to_serve_all, self.recovered, self.replayed
        );
        if let Some(ratio) = self.peak_to_steady {
            println!("churn: the server's memory at its peak is {ratio} times that before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replayed_frame_says_so_before_its_data() {
        assert!(is_replayed(br#"{"type":"task_event","seq":3,"prev_seq":2,"replayed":true,"data":{}}"#));
        assert!(!is_replayed(br#"{"type":"task_event","seq":3,"prev_seq":2,"data":{}}"#));
    }
}
