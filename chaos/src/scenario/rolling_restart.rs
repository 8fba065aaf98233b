//! Three nodes are restarted one after the other under many clients: each drains, and everybody is back on
//! another node without a rush and without having missed anything.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::wait::wait_for_some;
use serde_json::{Map, json};

use super::{Done, Setup, Stage, run};
use crate::cluster::NODES;
use crate::history::{History, Watcher};
use crate::pace::densest;
use crate::plan::Scale;
use crate::report::{Fault, Report};

/// Clients of the cluster.
const CLIENTS: usize = 2_000;

/// Over which time a node sends its sessions off.
const DRAIN: Duration = Duration::from_secs(6);

/// In which reconnects are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// How long a node may take to end beyond its drain.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// One node's drain.
struct Drain {
    began: Duration,
    ended: Duration,
    sessions: usize,
}

/// How the clients of one drain came back: how many were announced for a window, and how many came in the
/// fullest one. What the drain decides is when they knock; when each of them is let in depends on how busy
/// the machine is as well.
struct Return {
    announced: f64,
    knocked: usize,
    let_in: usize,
}

/// Reconnects may come this much faster than sessions leave. In the short form, a test among others on a busy
/// machine, clients that had to wait for the processor knock together; without the hints all would come at
/// once, six times as fast.
fn rush_max(scale: Scale) -> f64 {
    match scale {
        Scale::Short => 3.0,
        Scale::Long => 1.5,
    }
}

pub fn rolling_restart(setup: &Setup) -> Result<Report> {
    let rounds = match setup.scale {
        Scale::Short => 1,
        Scale::Long => 5,
    };
    let size = setup.size(CLIENTS, 2, 2);
    let mut options = setup.cluster();
    options.drain_seconds = DRAIN.as_secs();
    let drains = RefCell::new(Vec::new());
    let planned = (rounds * NODES) as u64;
    let act = |stage: &mut Stage| {
        for node in (0..rounds).flat_map(|_| 0..NODES) {
            let drain = restart(stage, node).with_context(|| format!("the restart of node {node}"))?;
            drains.borrow_mut().push(drain);
        }
        let faults = vec![Fault { name: "node_restart", planned, done: drains.borrow().len() as u64 }];
        Ok(Done { faults, down: Duration::ZERO, more: Map::new(), races: Vec::new() })
    };
    run("rolling_restart", setup, &options, size, act, |report, history| {
        judge(report, history, &drains.borrow(), rush_max(setup.scale));
    })
}

fn judge(report: &mut Report, history: &History, drains: &[Drain], rush_max: f64) {
    let returns: Vec<Return> = drains.iter().map(|drain| came_back(history, drain)).collect();
    for (number, Return { announced, knocked, .. }) in returns.iter().enumerate() {
        report.require(*knocked as f64 <= announced * rush_max, || {
            format!(
                "restart {number}: {knocked} came back within {WINDOW:?}, and {announced:.0} were announced"
            )
        });
    }
    let rates = returns.iter().map(|Return { announced, knocked, let_in }| {
        json!({"announced": announced.round(), "knocked": knocked, "let_in": let_in})
    });
    report.more.insert("returns_in_the_fullest_second".to_owned(), rates.collect());
    // Every session of a drained node came back once, and no other one was touched.
    let sessions: usize = drains.iter().map(|drain| drain.sessions).sum();
    let absences = || history.watchers.iter().flat_map(|watcher| &watcher.absences);
    let count = absences().count();
    report.require(count == sessions, || format!("{sessions} sessions were sent off, and {count} came back"));
    report
        .more
        .insert("second_attempts".to_owned(), absences().filter(|one| one.attempts > 1).count().into());
}

/// One node drains and ends, and is started again when all its clients are elsewhere.
fn restart(stage: &mut Stage, node: usize) -> Result<Drain> {
    let Stage { cluster, crew } = stage;
    crew.wait_all_present("every watcher to be there before the restart")?;
    let sessions = crew.sessions()[node];
    ensure!(sessions > 0, "node {node} has no sessions");
    let began = crew.elapsed();
    cluster.terminate(node)?;
    let status = wait_for_some("its end", DRAIN + END_PATIENCE, || cluster.ended(node))?;
    ensure!(status.success(), "node {node} ended with {status}");
    crew.wait_all_present("every watcher to be back")?;
    let ended = crew.elapsed();
    cluster.restart(node)?;
    cluster.wait_ready(node)?;
    cluster.wait_balanced()?;
    Ok(Drain { began, ended, sessions })
}

fn came_back(history: &History, drain: &Drain) -> Return {
    let during = drain.began..=drain.ended;
    let fullest = |times: fn(&Watcher) -> &[Duration]| {
        let times = history.watchers.iter().flat_map(times).copied();
        densest(&times.filter(|time| during.contains(time)).collect::<Vec<_>>(), WINDOW)
    };
    Return {
        announced: drain.sessions as f64 * WINDOW.as_secs_f64() / DRAIN.as_secs_f64(),
        knocked: fullest(|watcher| &watcher.knocks),
        let_in: fullest(|watcher| &watcher.sessions),
    }
}
