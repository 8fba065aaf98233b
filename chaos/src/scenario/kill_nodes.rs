//! Nodes are killed under load, one after the other, and come back: every client is on another node and has
//! everything before the dead one is started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::Map;

use super::{Done, Setup, Stage, run};
use crate::cluster::NODES;
use crate::plan::{NodeKill, Scale, node_kills};
use crate::report::{Fault, Report};
use crate::watchers::{AWAY, Standing};

/// A node dies when its sessions have been there for so long. Sooner, its clients would rightly take it for
/// one that accepts connections and serves nobody, and stay away for longer.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// For the slowest of all.
const RETURN_PATIENCE: Duration = Duration::from_secs(60);

/// Kills of one run.
fn kills(scale: Scale) -> usize {
    match scale {
        Scale::Short => 50,
        Scale::Long => 1_000,
    }
}

/// Clients of a node that died must have everything again within this time, 99 of 100. The long form holds
/// what is promised; the short one is a test among others on a busy machine, and looks for who is stuck.
fn recovery_p99(scale: Scale) -> Duration {
    match scale {
        Scale::Short => Duration::from_secs(10),
        Scale::Long => Duration::from_secs(2),
    }
}

pub fn kill_nodes(setup: &Setup) -> Result<Report> {
    let size = setup.size(24, 8, 80);
    let plan = node_kills(setup.seed, kills(setup.scale));
    let planned = plan.len() as u64;
    let act = |stage: &mut Stage| {
        let mut done = 0;
        // When sessions came to each node last.
        let mut settled = [Instant::now(); NODES];
        for (number, kill) in plan.iter().enumerate() {
            strike(stage, kill, &mut settled).with_context(|| format!("kill {number}"))?;
            done += 1;
        }
        let faults = vec![Fault { name: "node_kill", planned, done }];
        Ok(Done { faults, down: Duration::ZERO, more: Map::new(), races: Vec::new() })
    };
    run("kill_nodes", setup, &setup.cluster(), size, act, |report, history| {
        report.require_p99_below(recovery_p99(setup.scale));
        let returned_home = history.watchers.iter().flat_map(|watcher| &watcher.absences);
        let returned_home = returned_home.filter(|absence| absence.from_node == absence.to_node).count();
        report.require(returned_home == 0, || format!("{returned_home} came back to the node that had died"));
        // Each kill took sessions with it.
        let recoveries = report.recovery.count;
        report.require(recoveries >= planned, || format!("{recoveries} recoveries after {planned} kills"));
    })
}

/// One node dies under load, its clients go elsewhere, and it comes back.
fn strike(stage: &mut Stage, kill: &NodeKill, settled: &mut [Instant; NODES]) -> Result<()> {
    let Stage { cluster, crew } = stage;
    crew.wait_acks(kill.after_acks)?;
    crew.wait_all_present("every watcher to be there before the kill")?;
    let victim = wait_for_some("a node whose sessions have settled", PATIENCE, || {
        let sessions = crew.sessions();
        let is_settled = |node: &usize| sessions[*node] > 0 && settled[*node].elapsed() >= SETTLED_AFTER;
        let candidates: Vec<usize> = (0..NODES).filter(is_settled).collect();
        let picked = usize::try_from(kill.pick).unwrap_or(0).checked_rem(candidates.len());
        Ok(picked.map(|picked| candidates[picked]))
    })?;
    let gone: Vec<(&Arc<Standing>, u64)> = crew
        .standings()
        .iter()
        .filter(|standing| standing.node() == victim)
        .map(|standing| (standing, standing.returns()))
        .collect();
    let at = Instant::now();
    while at.elapsed() < kill.delay {
        std::hint::spin_loop();
    }
    cluster.kill(victim)?;
    let is_back =
        |(standing, before): &(&Arc<Standing>, u64)| standing.returns() > *before && standing.node() != AWAY;
    let waited = wait_for_some("its clients to be back", RETURN_PATIENCE, || {
        Ok(gone.iter().all(is_back).then_some(()))
    });
    let away = gone.iter().filter(|one| !is_back(one)).count();
    waited.with_context(|| format!("{away} of {} clients are still away", gone.len()))?;
    for (standing, _) in &gone {
        if let Some(settled) = settled.get_mut(standing.node()) {
            *settled = Instant::now();
        }
    }
    cluster.restart(victim)?;
    cluster.wait_ready(victim)?;
    cluster.wait_balanced()
}
