//! The link between nodes and broker is slow and loses packets: everything takes longer, and nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::proxy::{Direction, Fault as LinkFault};
use serde_json::Map;

use super::{Done, Setup, Stage, let_pass, run};
use crate::cluster::NODES;
use crate::network::{self, Loss};
use crate::plan::{Random, Scale};
use crate::report::{Fault, Report};

/// What every read is late by at most, in both directions.
const JITTER: Duration = Duration::from_millis(200);

/// Of all packets between the proxies and the broker, how many are lost.
const LOSS: f64 = 0.05;

/// Where packets cannot be dropped, links stand still instead, one after the other: as long as it takes TCP
/// to repeat a packet once or twice.
const STALL_MILLIS: std::ops::Range<u64> = 200..900;
const BETWEEN_STALLS_MILLIS: std::ops::Range<u64> = 300..900;

pub fn slow_link(setup: &Setup) -> Result<Report> {
    let lasts = match setup.scale {
        Scale::Short => Duration::from_secs(15),
        Scale::Long => Duration::from_secs(300),
    };
    let size = setup.size(24, 16, 12);
    let seed = setup.seed;
    let act = |stage: &mut Stage| {
        let link = if network::is_apart() { "iptables" } else { "proxy" };
        let before = proxies(stage);
        for node in 0..NODES {
            stage.cluster.proxy(node).set(Direction::Both, LinkFault::Jitter { max: JITTER });
        }
        let mut fault = Fault { name: "lossy_link", planned: 1, done: 0 };
        let harmed = if network::is_apart() { lose(stage, lasts)? } else { stall(stage, lasts, seed)? };
        let after = proxies(stage);
        let late = before.iter().zip(&after).all(|(before, after)| after.0 > before.0);
        ensure!(late, "some node's bytes were not late: {before:?}, {after:?}");
        (0..NODES).for_each(|node| stage.cluster.proxy(node).heal());
        fault.done = u64::from(harmed > 0);
        stage.wait_all_ready()?;
        let mut more = Map::new();
        more.insert("link".to_owned(), link.into());
        more.insert(if link == "iptables" { "packets_dropped" } else { "stalls" }.to_owned(), harmed.into());
        more.insert("link_seconds".to_owned(), lasts.as_secs().into());
        Ok(Done { faults: vec![fault], down: Duration::ZERO, more, races: Vec::new() })
    };
    run("slow_link", setup, &setup.cluster(), size, act, |report, history| {
        let dropped: usize = history.watchers.iter().map(|watcher| watcher.absences.len()).sum();
        report.require(dropped == 0, || format!("{dropped} sockets were dropped because of the link"));
    })
}

/// Bytes delayed and directions held, by node.
fn proxies(stage: &Stage) -> Vec<(u64, u64)> {
    let counts = (0..NODES).map(|node| stage.cluster.proxy(node).counts());
    counts.map(|counts| (counts.bytes_delayed, counts.stalls)).collect()
}

/// Packets are dropped. Gives how many.
fn lose(stage: &mut Stage, lasts: Duration) -> Result<u64> {
    let loss = Loss::begin(stage.cluster.broker().addr(), LOSS)?;
    let_pass(lasts)?;
    loss.dropped()
}

/// Links stand still one after the other. Gives how often something was really held.
fn stall(stage: &mut Stage, lasts: Duration, seed: u64) -> Result<u64> {
    let before: u64 = proxies(stage).iter().map(|(_, stalls)| stalls).sum();
    let mut random = Random::new(seed);
    let began = Instant::now();
    while began.elapsed() < lasts {
        let node = usize::try_from(random.within(0..NODES as u64)).context("a node's number")?;
        stage.cluster.proxy(node).set(Direction::Both, LinkFault::Blackhole);
        let_pass(Duration::from_millis(random.within(STALL_MILLIS)))?;
        stage.cluster.proxy(node).set(Direction::Both, LinkFault::Jitter { max: JITTER });
        let_pass(Duration::from_millis(random.within(BETWEEN_STALLS_MILLIS)))?;
    }
    let after: u64 = proxies(stage).iter().map(|(_, stalls)| stalls).sum();
    Ok(after - before)
}
