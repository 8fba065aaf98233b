//! The broker dies and comes back, stands still, and is away for half a minute: nobody's socket is dropped
//! for it, and nothing that was acknowledged is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::proxy::Counts;
use serde_json::{Map, Value, json};

use super::{Done, Setup, Stage, let_pass, run};
use crate::cluster::NODES;
use crate::plan::{BrokerFault, BrokerFaultKind, Scale, broker_faults};
use crate::report::{Fault, Quantiles, Report};

/// Publications that are acknowledged before each fault, and after it.
const ACKS_BETWEEN: u64 = 60;

/// Every node, by its number.
const ALL: [usize; NODES] = [0, 1, 2];

/// What has happened so far, by evidence.
#[derive(Default)]
struct Tally {
    kills: u64,
    freezes: u64,
    outages: u64,
    down: Duration,
    /// From the moment that the broker was back to the first publications, and to ready nodes.
    acked_again: Vec<Duration>,
    green_again: Vec<Duration>,
}

pub fn kill_broker(setup: &Setup) -> Result<Report> {
    let size = setup.size(24, 8, 80);
    let (kills, freezes, outages) = match setup.scale {
        Scale::Short => (5, 1, 1),
        Scale::Long => (60, 10, 3),
    };
    let plan = broker_faults(setup.seed, kills, freezes, outages);
    let planned = |kind| plan.iter().filter(|fault| fault.kind == kind).count() as u64;
    let act = |stage: &mut Stage| {
        let mut tally = Tally::default();
        for (number, fault) in plan.iter().enumerate() {
            strike(stage, fault, &mut tally).with_context(|| format!("fault {number}, {fault:?}"))?;
        }
        let faults = vec![
            Fault { name: "broker_kill", planned: planned(BrokerFaultKind::Kill), done: tally.kills },
            Fault { name: "broker_freeze", planned: planned(BrokerFaultKind::Freeze), done: tally.freezes },
            Fault { name: "broker_outage", planned: planned(BrokerFaultKind::Outage), done: tally.outages },
        ];
        Ok(Done { faults, down: tally.down, more: tally.more(), races: Vec::new() })
    };
    run("kill_broker", setup, &setup.cluster(), size, act, |report, history| {
        let dropped: usize = history.watchers.iter().map(|watcher| watcher.absences.len()).sum();
        report.require(dropped == 0, || format!("{dropped} sockets were dropped because of the broker"));
    })
}

impl Tally {
    fn more(&self) -> Map<String, Value> {
        let quantiles = |times: &[Duration]| {
            let Quantiles { count, p50_ms, max_ms, .. } = Quantiles::of(times.iter().copied());
            json!({"count": count, "p50_ms": p50_ms, "max_ms": max_ms})
        };
        let mut more = Map::new();
        more.insert("acked_again".to_owned(), quantiles(&self.acked_again));
        more.insert("green_again".to_owned(), quantiles(&self.green_again));
        more
    }
}

/// One fault, its evidence, and the way back from it.
fn strike(stage: &mut Stage, fault: &BrokerFault, tally: &mut Tally) -> Result<()> {
    stage.wait_all_ready()?;
    stage.crew.wait_acks(ACKS_BETWEEN)?;
    stage.crew.wait_all_present("every watcher to be there before the fault")?;
    let counts = |stage: &Stage| ALL.map(|node| stage.cluster.proxy(node).counts());
    let before = counts(stage);
    let began = Instant::now();
    let broker = stage.cluster.broker();
    match fault.kind {
        BrokerFaultKind::Kill | BrokerFaultKind::Outage => {
            broker.kill()?;
            ensure!(!broker.listens(), "the broker was killed and still listens");
        }
        BrokerFaultKind::Freeze => {
            broker.freeze()?;
            ensure!(!broker.answers(), "the broker was frozen and still answers");
        }
    }
    let_pass(fault.lasts.saturating_sub(began.elapsed()))?;
    if fault.kind != BrokerFaultKind::Kill {
        stage.wait_all_say(&ALL, 503).context("every node must have noticed")?;
        stage.cluster.check_alive()?;
    }
    let back = Instant::now();
    match fault.kind {
        BrokerFaultKind::Kill | BrokerFaultKind::Outage => stage.cluster.broker().restart()?,
        BrokerFaultKind::Freeze => stage.cluster.broker().thaw()?,
    }
    let served = Instant::now();
    stage.crew.wait_acks(1)?;
    tally.acked_again.push(served.elapsed());
    if fault.kind != BrokerFaultKind::Kill {
        tally.green_again.push(stage.wait_all_said(back, &ALL, 200)?);
    }
    tally.down += began.elapsed();
    ensure!(noticed(&before, &counts(stage)), "the connections of the nodes did not end");
    match fault.kind {
        BrokerFaultKind::Kill => tally.kills += 1,
        BrokerFaultKind::Freeze => tally.freezes += 1,
        BrokerFaultKind::Outage => tally.outages += 1,
    }
    Ok(())
}

/// Whether some node had to connect again.
fn noticed(before: &[Counts; NODES], after: &[Counts; NODES]) -> bool {
    before.iter().zip(after).any(|(before, after)| {
        after.connections > before.connections || after.upstream_failures > before.upstream_failures
    })
}
