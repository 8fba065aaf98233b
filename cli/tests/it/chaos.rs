//! The short forms of the chaos runs, with the binary of this build. `make nightly` has the long ones.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hiveops_chaos::broker::Bus;
use hiveops_chaos::plan::Scale;
use hiveops_chaos::report::Report;
use hiveops_chaos::scenario::{self, Setup};

/// A run is about what a cluster does under load, and the machine is as large as one of them needs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn check(scenario: fn(&Setup) -> anyhow::Result<Report>, bus: Bus) {
    // One that failed leaves nothing behind.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let setup = Setup::new(Path::new(env!("CARGO_BIN_EXE_hiveops")), bus, Scale::Short);
    match scenario(&setup) {
        Ok(report) => println!("{}", report.line()),
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn fifty_killed_nodes_cost_nobody_anything_on_nats() {
    check(scenario::kill_nodes, Bus::Nats);
}

#[test]
fn a_broker_that_dies_or_stands_still_costs_nobody_anything_on_nats() {
    check(scenario::kill_broker, Bus::Nats);
}

#[test]
fn a_node_that_is_cut_off_from_the_broker_keeps_its_clients_on_nats() {
    check(scenario::partition_node, Bus::Nats);
}

#[test]
fn a_rolling_restart_under_two_thousand_clients_is_no_rush_on_nats() {
    check(scenario::rolling_restart, Bus::Nats);
}

#[test]
fn who_joins_while_something_is_published_has_it_once_on_nats() {
    check(scenario::races, Bus::Nats);
}
