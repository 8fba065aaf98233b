//! One node is cut off from the broker for half a minute and its connections are not closed: its clients
//! stay with it, publishers go elsewhere, and after the healing everybody has everything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::proxy::Fault as LinkFault;
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::{Map, json};

use super::{Done, Setup, Stage, let_pass, run};
use crate::cluster::NODES;
use crate::plan::{Partition, Scale, partitions};
use crate::report::{Fault, Quantiles, Report};

/// How long a node is cut off.
const CUT_OFF: Duration = Duration::from_secs(30);

/// Publications that are acknowledged meanwhile, by the others.
const ACKS_MEANWHILE: u64 = 200;

pub fn partition_node(setup: &Setup) -> Result<Report> {
    let size = setup.size(24, 8, 80);
    let plan = partitions(
        setup.seed,
        match setup.scale {
            Scale::Short => 1,
            Scale::Long => 10,
        },
    );
    let planned = plan.len() as u64;
    let act = |stage: &mut Stage| {
        let mut caught_up = Vec::new();
        for partition in &plan {
            caught_up.push(strike(stage, partition).with_context(|| format!("{partition:?}"))?);
        }
        let faults = vec![Fault { name: "partition", planned, done: caught_up.len() as u64 }];
        let Quantiles { p50_ms, max_ms, .. } = Quantiles::of(caught_up.into_iter());
        let mut more = Map::new();
        more.insert("healed_to_caught_up".to_owned(), json!({"p50_ms": p50_ms, "max_ms": max_ms}));
        Ok(Done { faults, down: Duration::ZERO, more, races: Vec::new() })
    };
    run("partition_node", setup, &setup.cluster(), size, act, |report, history| {
        let dropped: usize = history.watchers.iter().map(|watcher| watcher.absences.len()).sum();
        report.require(dropped == 0, || format!("{dropped} sockets were dropped because of the partition"));
    })
}

/// One node is cut off and healed. Gives how long its clients then took to have everything.
fn strike(stage: &mut Stage, partition: &Partition) -> Result<Duration> {
    stage.wait_all_ready()?;
    stage.crew.wait_acks(ACKS_MEANWHILE / 10)?;
    let sessions = stage.crew.sessions();
    let candidates: Vec<usize> = (0..NODES).filter(|node| sessions[*node] > 0).collect();
    let picked = usize::try_from(partition.pick).unwrap_or(0).checked_rem(candidates.len());
    let victim = candidates[picked.context("no node has sessions")?];
    let others: Vec<usize> = (0..NODES).filter(|node| *node != victim).collect();
    let proxy = stage.cluster.proxy(victim);
    let before = proxy.counts();
    let began = Instant::now();
    proxy.set(partition.direction, LinkFault::Blackhole);
    stage.wait_all_say(&[victim], 503).context("the node must have noticed")?;
    stage.cluster.balancer().wait_ready_are(&others)?;
    stage.crew.wait_acks(ACKS_MEANWHILE).context("publishers must find the other nodes")?;
    let_pass(CUT_OFF.saturating_sub(began.elapsed()))?;
    for other in others {
        let red = stage.crew.looks().first_since(began, other, 503);
        ensure!(red.is_none(), "node {other} became red, which was not cut off");
    }
    let stalls = stage.cluster.proxy(victim).counts().stalls - before.stalls;
    ensure!(stalls > 0, "the proxy held nothing back");
    let healed = Instant::now();
    stage.cluster.proxy(victim).heal();
    stage.wait_all_said(healed, &[victim], 200).context("the node must recover")?;
    let heads = stage.crew.ledger().heads();
    wait_for_some("its clients to have everything", PATIENCE, || {
        let reached = stage.crew.standings().iter().all(|standing| standing.has_reached(&heads));
        Ok(reached.then_some(()))
    })?;
    stage.cluster.wait_balanced()?;
    Ok(healed.elapsed())
}
