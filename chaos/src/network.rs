//! A network that loses packets: a namespace of its own, where rules of iptables drop some of them.
//!
//! Rules in the network that the machine uses would concern others and would stay when a run is killed. So
//! a run that needs them is made again in a namespace that nobody else is in and that ends with it. Where
//! the kernel, a right or a program is missing there is no such network, and the caller does without.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hiveops_testkit::process::Process;
use hiveops_testkit::wait::wait_for_some;

/// Every way into a network namespace, the one that needs a right first.
const WAYS: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];

/// In the new network only loopback is there, and it is down.
const BEGIN: &str = r#"ip link set lo up && exec "$0" "$@""#;

/// Tells in it whether rules can be made.
const TRY: &str = "ip link set lo up && iptables -A INPUT -i lo -p tcp --dport 9 \
                   -m statistic --mode random --probability 0.5 -j DROP";

/// Whether this process is in a network of its own: there is nothing but loopback.
pub fn is_apart() -> bool {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = devices.lines().skip(2).filter_map(|line| line.split(':').next());
    names.map(str::trim).eq(["lo"])
}

/// The arguments of `unshare` that lead to a network in which packets can be dropped; none where there is no
/// such way.
pub fn way_apart() -> Option<&'static [&'static str]> {
    let works = |way: &&&[&str]| {
        let mut tried = Command::new("unshare");
        tried.args(**way).args(["--", "sh", "-c", TRY]).stdout(Stdio::null()).stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    WAYS.iter().find(works).copied()
}

/// Runs a program in a network of its own, and gives what it has written and how it ended.
pub fn run_apart(
    way: &[&str],
    program: &Path,
    args: &[String],
    patience: Duration,
) -> Result<(ExitStatus, String)> {
    let place = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(way).args(["--", "sh", "-c", BEGIN]).arg(program).args(args);
    let mut process = Process::start("the run in its own network", &command, &place.path().join("output"))?;
    let status = wait_for_some("the run in its own network", patience, || process.ended());
    let output = process.output();
    Ok((status.with_context(|| output.clone())?, output))
}

/// Packets to and from one address are lost, until this is dropped.
#[derive(Debug)]
pub struct Loss {
    port: u16,
    probability: f64,
}

impl Loss {
    /// Only in a network of its own.
    pub fn begin(addr: SocketAddr, probability: f64) -> Result<Self> {
        ensure!(is_apart(), "packets of a network that others use are not to be dropped");
        let loss = Self { port: addr.port(), probability };
        for side in ["--dport", "--sport"] {
            iptables(&loss.rule("-A", side))?;
        }
        Ok(loss)
    }

    /// Packets that were lost so far.
    pub fn dropped(&self) -> Result<u64> {
        let table = iptables(&["-L", "INPUT", "-v", "-n", "-x"].map(str::to_owned))?;
        Ok(dropped(&table))
    }

    fn rule(&self, verb: &str, side: &str) -> Vec<String> {
        let (port, probability) = (self.port.to_string(), self.probability.to_string());
        let rule = [verb, "INPUT", "-i", "lo", "-p", "tcp", side, &port];
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &probability, "-j", "DROP"];
        rule.iter().chain(&chance).map(|&word| word.to_owned()).collect()
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        for side in ["--dport", "--sport"] {
            // The network ends with this process in any case.
            let _ = iptables(&self.rule("-D", side));
        }
    }
}

fn iptables(args: &[String]) -> Result<String> {
    let output = Command::new("iptables").args(args).output().context("cannot run iptables")?;
    if !output.status.success() {
        bail!("iptables {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The packets of all rules that drop some.
fn dropped(table: &str) -> u64 {
    let rules = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        let packets = columns.next()?.parse::<u64>().ok()?;
        (columns.nth(1)? == "DROP").then_some(packets)
    });
    rules.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_the_rules_that_drop_are_summed() {
        let table = "Chain INPUT (policy ACCEPT 7 packets, 8 bytes)\n    pkts      bytes target     prot\n      \
                     12      720 DROP       6    --  lo\n       3      180 ACCEPT     6    --  lo\n       \
                     5      300 DROP       6    --  lo\n";
        assert_eq!(dropped(table), 17);
    }

    #[test]
    fn nothing_is_dropped_in_the_network_of_the_machine() {
        if !is_apart() {
            let error = Loss::begin(([127, 0, 0, 1], 9).into(), 0.5).unwrap_err().to_string();
            assert!(error.contains("that others use"), "{error}");
        }
    }
}
