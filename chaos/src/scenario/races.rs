//! Sockets join and leave subscriptions while these are published to, with a position and without: whoever
//! joins has everything from there on, once.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Map;
use tokio::task::JoinSet;

use super::{Done, Setup, Stage, run};
use crate::history::Heard;
use crate::plan::Scale;
use crate::racers::{self, Track};
use crate::report::{Fault, Report};

/// Sockets that race.
const RACERS: u64 = 60;

/// Of all races, how many must have met a publication that was acknowledged between question and answer.
const CONTESTED_SHARE: f64 = 0.2;

/// More than any racer sends: these races are not about the rate of a client's messages.
const MESSAGES_PER_SECOND: &str = "100000";

pub fn races(setup: &Setup) -> Result<Report> {
    let planned: u64 = match setup.scale {
        Scale::Short => 10_000,
        Scale::Long => 200_000,
    };
    let size = setup.size(6, 16, 160);
    let mut options = setup.cluster();
    for name in ["WS_RATE_TOKENS_PER_SEC", "WS_RATE_BURST"] {
        options.env.push((name.to_owned(), MESSAGES_PER_SECOND.to_owned()));
    }
    let seed = setup.seed;
    let act = |stage: &mut Stage| {
        let track = Track {
            url: stage.cluster.url(),
            ledger: stage.crew.ledger_handle(),
            begun: Arc::new(AtomicU64::new(0)),
            races: planned,
            seed,
        };
        let mut racers = JoinSet::new();
        for number in 0..RACERS {
            racers.spawn_on(racers::race(number, track.clone()), stage.crew.runtime());
        }
        let races = stage.crew.runtime().block_on(async {
            let mut races = Vec::new();
            while let Some(raced) = racers.join_next().await {
                races.extend(raced.context("a racer broke")??);
            }
            anyhow::Ok(races)
        })?;
        let contested = races.iter().filter(|race| race.contested).count() as u64;
        let resumed =
            races.iter().filter(|race| matches!(race.heard.first(), Some(Heard::Since { .. }))).count();
        let faults = vec![
            Fault { name: "race", planned, done: races.len() as u64 },
            Fault {
                name: "contested_race",
                planned: (planned as f64 * CONTESTED_SHARE) as u64,
                done: contested,
            },
            // A third asks for a snapshot, and so does whoever has no place yet.
            Fault { name: "race_with_since", planned: planned / 3, done: resumed as u64 },
        ];
        Ok(Done { faults, down: Duration::ZERO, more: Map::new(), races })
    };
    run("races", setup, &options, size, act, |_, _| {})
}
