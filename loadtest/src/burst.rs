//! `burst`: groups of publications back to back, again and again. Each group goes out in one write on one
//! keep-alive connection (HTTP pipelining), so the server has the whole group before it has answered the
//! first. The floor gets the same and still makes one send per frame and socket.

use std::time::Duration;

use clap::value_parser;

use crate::Outcome;
use crate::fanout::{More, Place, compare};
use crate::load::{Load, Server, measure};
use crate::options::seconds;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// `--rate` is that of the groups
    #[command(flatten)]
    load: Load,
    /// Publications of a group
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=1_000))]
    burst: u32,
    /// How often the floor and the server are measured in turn; the ratio is the median
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(0..=101))]
    pairs: u32,
    /// How long the server's system calls are counted, in a run of its own and with perf; 0 leaves it out
    #[arg(long, default_value = "0", value_parser = seconds)]
    syscall_seconds: Duration,
}

pub(crate) fn run(mut arguments: Arguments) -> anyhow::Result<Outcome> {
    arguments.load.burst = arguments.burst;
    let Arguments { place, load, pairs, syscall_seconds, .. } = arguments;
    load.plan()?;
    let server = place.server(load.connections)?;
    let syscalls_per_delivery =
        if syscall_seconds.is_zero() { None } else { count_syscalls(&load, &server, syscall_seconds)? };
    compare("burst", &load, &server, pairs, &More { syscalls_per_delivery })
}

/// Apart from what is measured otherwise: counting is not free.
fn count_syscalls(load: &Load, server: &Server, length: Duration) -> anyhow::Result<Option<f64>> {
    let load = Load { seconds: length, count_syscalls: true, ..load.clone() };
    let once = measure(&load, &load.plan()?, server)?;
    if once.syscalls.is_none() {
        eprintln!("note: the server's process was not found, so its system calls are not counted: --pid");
    }
    let each = once.syscalls.filter(|_| once.totals.delivered > 0);
    let each = each.map(|calls| calls as f64 / once.totals.delivered as f64);
    Ok(each.map(|each| (each * 10_000.0).round() / 10_000.0))
}
