//! Messages that nobody should send are sent over the bus: each is dropped or repaired as documented, and
//! counted, and nodes live on; also one that starts with such messages in its logs.

mod cases;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hiveops_client::{Client, Event, Options};
use hiveops_proto::ServerFrame;
use hiveops_proto::frame::Publication;
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::Map;
use tokio::task::JoinSet;

use self::cases::{Case, Correlation, Growth, cases};
use super::{Done, Setup, Stage, run};
use crate::broker::Bus;
use crate::cluster::NODES;
use crate::report::{Fault, Report};
use crate::sync::lock;

/// Publications that are acknowledged after it all.
const ACKS_AFTER: u64 = 50;

/// The node that is killed and started again at the end.
const RESTARTED: usize = 0;

/// What one more client gets.
type Got = Arc<Mutex<Vec<Publication>>>;

pub fn bad_messages(setup: &Setup) -> Result<Report> {
    let size = setup.size(9, 4, 40);
    let bus = setup.bus;
    let act = |stage: &mut Stage| {
        let got = Got::default();
        let mut client = JoinSet::new();
        client.spawn_on(follow(stage.cluster.url(), Arc::clone(&got)), stage.crew.runtime());
        if bus == Bus::Redis {
            wait_intake(stage)?;
        }
        let mut done = 0;
        let cases = cases(bus);
        for (number, case) in cases.iter().enumerate() {
            send(stage, case, &got).with_context(|| format!("message {number}, to {}", case.place))?;
            done += 1;
        }
        stage.cluster.check_alive()?;
        stage.cluster.kill(RESTARTED)?;
        stage.cluster.restart(RESTARTED)?;
        stage.cluster.wait_ready(RESTARTED).context("a start with bad messages in the logs")?;
        stage.cluster.wait_balanced()?;
        stage.crew.wait_acks(ACKS_AFTER)?;
        let faults = vec![Fault { name: "bad_message", planned: cases.len() as u64, done }];
        Ok(Done { faults, down: Duration::ZERO, more: Map::new(), races: Vec::new() })
    };
    run("bad_messages", setup, &setup.cluster(), size, act, |report, history| {
        let absences = history.watchers.iter().flat_map(|watcher| &watcher.absences);
        let dropped = absences.filter(|absence| absence.from_node != RESTARTED).count();
        report.require(dropped == 0, || format!("{dropped} sockets were dropped because of a message"));
    })
}

/// Sends one message and waits for its fate.
fn send(stage: &mut Stage, case: &Case, got: &Got) -> Result<()> {
    let before: Vec<f64> =
        case.counted.iter().map(|(metric, label, _)| stage.cluster.metric(metric, label)).collect();
    stage.cluster.broker().publish(case.place, &case.headers, &case.payload)?;
    for ((metric, label, growth), before) in case.counted.iter().zip(before) {
        let (least, most) = match growth {
            Growth::Once => (1.0, 1.0),
            Growth::Everywhere => (NODES as f64, NODES as f64),
            Growth::Some => (NODES as f64, f64::MAX),
        };
        let grown = wait_for_some(&format!("{metric} {label} to grow by {least}"), PATIENCE, || {
            if *growth == Growth::Some {
                // Nodes that connect again after the one before do not hear it.
                stage.cluster.broker().publish(case.place, &case.headers, &case.payload)?;
            }
            let grown = stage.cluster.metric(metric, label) - before;
            Ok((grown >= least).then_some(grown))
        })?;
        ensure!(grown <= most, "{metric} {label} grew by {grown} instead of {most}");
    }
    if let Some(arrives) = case.arrives {
        let mark = format!("\"mark\":\"{}\"", arrives.mark);
        let frame = wait_for_some(&format!("a frame with {mark}"), PATIENCE, || {
            Ok(lock(got).iter().find(|frame| frame.data.as_str().contains(&mark)).cloned())
        })?;
        let (id, source) = (frame.correlation_id.as_str(), frame.source_correlation_id.as_deref());
        let right = match arrives.correlation {
            Correlation::Is(expected) => id == expected && source.is_none(),
            Correlation::Made => !id.is_empty() && source.is_none(),
            Correlation::Repaired(original) => id != original && source == Some(original),
        };
        ensure!(right, "the frame has the correlation id {id} and the source {source:?}");
    }
    stage.cluster.check_alive()
}

/// One node takes in what comes over plain channels, as soon as it has the lease.
fn wait_intake(stage: &mut Stage) -> Result<()> {
    let taken_in = |stage: &Stage| stage.cluster.metric("hiveops_bus_taken_in_total", "");
    wait_for_some("a node to take in what publishers send", PATIENCE, || {
        stage.cluster.broker().publish("system_events", &[], br#"{"mark":"first"}"#)?;
        Ok((taken_in(stage) > 0.0).then_some(()))
    })?;
    // Those that were sent meanwhile.
    let mut last = taken_in(stage);
    wait_for_some("the last of them to be taken in", PATIENCE, || {
        let now = taken_in(stage);
        let is_still = now == last;
        last = now;
        Ok(is_still.then_some(()))
    })
}

/// Until it is dropped.
async fn follow(url: String, got: Got) {
    let mut options = Options::new(url);
    options.subscriptions =
        ["agents", "alerts", "project_index", "system", "tasks"].map(str::to_owned).to_vec();
    let Ok(mut client) = Client::new(options) else { return };
    while let Some(event) = client.next().await {
        if let Event::Frame(ServerFrame::Publication(frame)) = event
            && frame.data.as_str().contains("\"mark\"")
        {
            lock(&got).push(frame);
        }
    }
}
