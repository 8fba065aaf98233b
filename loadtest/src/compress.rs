//! `compress`: what permessage-deflate costs. Two runs in turn on one server: in one the clients offer it, in
//! the other they do not. The data are words, which compress as the text of real messages does.

use anyhow::{Context as _, ensure};
use clap::value_parser;
use serde::Serialize;

use crate::Outcome;
use crate::fanout::Place;
use crate::load::{Load, Measurement};
use crate::rounds::{Contender, Ratio, Summary, in_turn};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    load: Load,
    /// How often both are measured in turn; the ratio is the median
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=101))]
    pairs: u32,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    rate: u32,
    size: u32,
    seconds: f64,
    rounds: u32,
    /// With compression.
    #[serde(flatten)]
    deflate: Summary,
    plain: Summary,
    inflated: u64,
    ratio_to_plain: Option<f64>,
    ratio_to_plain_rounds: Option<Vec<f64>>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let Arguments { place, load, pairs } = arguments;
    let plain = Load { words: true, ..load };
    let deflate = Load { deflate: true, ..plain.clone() };
    plain.plan()?;
    let server = place.server(plain.connections)?;
    let contenders = [
        Contender { name: "plain", load: &plain, server: &server },
        Contender { name: "deflate", load: &deflate, server: &server },
    ];
    let mut measured = in_turn(&contenders, pairs)?;
    let with = measured.pop().context("there are two contenders")?;
    let without = measured.pop().context("there are two contenders")?;
    let inflated: u64 = with.iter().map(|once| once.inflated).sum();
    ensure!(
        inflated > 0,
        "the server compressed nothing: is WS_COMPRESSION_ENABLED set, and --size large enough?"
    );
    let ratio = Ratio::cpu(&with, &without);
    if let Some(ratio) = &ratio {
        println!("server CPU per delivery with compression is {} times that without", ratio.median);
    }
    let report = Report {
        test: "compress",
        connections: plain.connections,
        rate: plain.rate,
        size: plain.size,
        seconds: plain.seconds.as_secs_f64(),
        rounds: pairs,
        deflate: Summary::of(&with),
        plain: Summary::of(&without),
        inflated,
        ratio_to_plain: ratio.as_ref().map(|ratio| ratio.median),
        ratio_to_plain_rounds: ratio.map(|ratio| ratio.rounds),
    };
    println!("{}", serde_json::to_string(&report)?);
    let clean = with.iter().chain(&without).all(Measurement::is_clean);
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}
