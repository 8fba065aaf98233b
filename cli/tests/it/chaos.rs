//! The short forms of the chaos runs, with the binary of this build. `make nightly` has the long ones.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hiveops_chaos::broker::Bus;
use hiveops_chaos::network;
use hiveops_chaos::plan::Scale;
use hiveops_chaos::report::Report;
use hiveops_chaos::scenario::{self, Setup};

/// A run is about what a cluster does under load, and the machine is as large as one of them needs.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// For a run in a network of its own.
const APART_PATIENCE: Duration = Duration::from_secs(120);

fn check(scenario: fn(&Setup) -> anyhow::Result<Report>, bus: Bus) {
    // One that failed leaves nothing behind.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let setup = Setup::new(Path::new(env!("CARGO_BIN_EXE_hiveops")), bus, Scale::Short);
    match scenario(&setup) {
        Ok(report) => println!("{}", report.line()),
        Err(error) => panic!("{error:#}"),
    }
}

/// The test with this name again, in a network whose packets can be lost; here when there is no way to one.
fn check_apart(test: &str, scenario: fn(&Setup) -> anyhow::Result<Report>, bus: Bus) {
    let way = if network::is_apart() { None } else { network::way_apart() };
    let Some(way) = way else { return check(scenario, bus) };
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let args = [&format!("chaos::{test}"), "--exact", "--nocapture"].map(str::to_owned);
    let program = std::env::current_exe().unwrap();
    let (status, output) = network::run_apart(way, &program, &args, APART_PATIENCE).unwrap();
    assert!(status.success() && output.contains("1 passed"), "{output}");
    println!("{output}");
}

#[test]
fn fifty_killed_nodes_cost_nobody_anything_on_nats() {
    check(scenario::kill_nodes, Bus::Nats);
}

#[test]
fn fifty_killed_nodes_cost_nobody_anything_on_redis() {
    check(scenario::kill_nodes, Bus::Redis);
}

#[test]
fn a_broker_that_dies_or_stands_still_costs_nobody_anything_on_nats() {
    check(scenario::kill_broker, Bus::Nats);
}

#[test]
fn a_broker_that_dies_or_stands_still_costs_nobody_anything_on_redis() {
    check(scenario::kill_broker, Bus::Redis);
}

#[test]
fn a_node_that_is_cut_off_from_the_broker_keeps_its_clients_on_nats() {
    check(scenario::partition_node, Bus::Nats);
}

#[test]
fn a_node_that_is_cut_off_from_the_broker_keeps_its_clients_on_redis() {
    check(scenario::partition_node, Bus::Redis);
}

#[test]
fn a_rolling_restart_under_two_thousand_clients_is_no_rush_on_nats() {
    check(scenario::rolling_restart, Bus::Nats);
}

#[test]
fn a_rolling_restart_under_two_thousand_clients_is_no_rush_on_redis() {
    check(scenario::rolling_restart, Bus::Redis);
}

#[test]
fn who_joins_while_something_is_published_has_it_once_on_nats() {
    check(scenario::races, Bus::Nats);
}

#[test]
fn who_joins_while_something_is_published_has_it_once_on_redis() {
    check(scenario::races, Bus::Redis);
}

#[test]
fn bad_messages_are_dropped_or_repaired_and_counted_on_nats() {
    check(scenario::bad_messages, Bus::Nats);
}

#[test]
fn bad_messages_are_dropped_or_repaired_and_counted_on_redis() {
    check(scenario::bad_messages, Bus::Redis);
}

#[test]
fn a_slow_link_that_loses_packets_costs_nobody_anything_on_nats() {
    check_apart(
        "a_slow_link_that_loses_packets_costs_nobody_anything_on_nats",
        scenario::slow_link,
        Bus::Nats,
    );
}

#[test]
fn a_slow_link_that_loses_packets_costs_nobody_anything_on_redis() {
    check_apart(
        "a_slow_link_that_loses_packets_costs_nobody_anything_on_redis",
        scenario::slow_link,
        Bus::Redis,
    );
}
