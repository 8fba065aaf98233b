//! What the cluster consists of, what to try with it, and how to break it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use hiveops_node::Config;

use super::part::Kind;
use super::plan::Plan;
use crate::address::url;
use crate::command::dev::banner::{Asks, USUAL_NODE, program};

pub(super) struct Banner {
    program: String,
    /// In the order of their pids.
    parts: Vec<Row>,
    /// Options of the commands that talk to a node, but for its address.
    asks: Asks,
    /// Options of the commands that talk to the replicas.
    controls: String,
    restart_seconds: u64,
    keeps: bool,
    demo: bool,
}

struct Row {
    kind: Kind,
    name: String,
    port: u16,
    data: PathBuf,
}

impl Banner {
    pub(super) fn new(config: &Config, plan: &Plan, restart_seconds: u64, demo: bool) -> Self {
        let row = |part: &super::Part| {
            let (name, data) = (part.name.clone(), part.data.clone());
            Row { kind: part.kind, name, port: part.port, data }
        };
        let urls: Vec<String> = plan.addresses(Kind::Control).into_iter().map(url).collect();
        let secret =
            if config.cluster_secret.is_some() { " --secret \"$HIVEOPS_CLUSTER_SECRET\"" } else { "" };
        Self {
            program: program(std::env::args_os().next()),
            parts: plan.parts.iter().map(row).collect(),
            asks: Asks::of(&config.auth),
            controls: format!(" --control {}{secret}", urls.join(",")),
            restart_seconds,
            keeps: config.data_dir.is_some(),
            demo,
        }
    }

    pub(super) fn text(&self, address: SocketAddr, pids: &[Rc<Cell<u32>>]) -> String {
        let pids: Vec<u32> = pids.iter().map(|pid| pid.get()).collect();
        let mut text = self.parts(address, &pids);
        self.advice(&mut text, address);
        self.harm(&mut text, &pids);
        if self.demo {
            text.push_str(&self.asks.demo());
        }
        if !self.keeps {
            text.push_str("\nNothing is kept when it stops; `--data-dir ./cluster` keeps it.\n");
        }
        text.push_str("Stop with Ctrl-C, which ends every part.");
        text
    }

    fn count(&self, kind: Kind) -> usize {
        self.parts.iter().filter(|part| part.kind == kind).count()
    }

    fn parts(&self, address: SocketAddr, pids: &[u32]) -> String {
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (nodes, controls) = (self.count(Kind::Node), self.count(Kind::Control));
        let mut text = format!("HiveOps {} listens on {}\n\n", env!("CARGO_PKG_VERSION"), url(address));
        let (nodes, replicas) = (plural(nodes, "node"), plural(controls, "control replica"));
        let _ = writeln!(text, "{nodes} behind this address, {replicas}:\n");
        let _ =
            writeln!(text, "  {:10} {:>8}  {:16} data (log: the same with .log)", "part", "pid", "address");
        for (part, pid) in self.parts.iter().zip(pids) {
            let data = part.data.display();
            let _ = writeln!(text, "  {:10} {pid:>8}  127.0.0.1:{:<6} {data}", part.name, part.port);
        }
        if controls.is_multiple_of(2) {
            let survives = "an even number of replicas survives no more losses than one less.";
            let _ = writeln!(text, "\nBeware: {survives}");
        }
        text
    }

    fn advice(&self, text: &mut String, address: SocketAddr) {
        let Self { program, controls, .. } = self;
        let (credential, log_in) = (self.asks.option(), self.asks.log_in(program, &url(address), controls));
        let url = url(address);
        let node = if url == USUAL_NODE { String::new() } else { format!(" --url {url}") };
        let _ = write!(
            text,
            "\nTry, in another terminal:\n{log_in}  \
             open     {url}/\n  \
             watch    {program} watch tasks{node}{credential}\n  \
             publish  {program} publish tasks task_event '{{\"note\":\"hello\"}}'{node}{credential}\n  \
             nodes    {program} status{node}{credential}\n  \
             control  {program} status{controls}\n  \
             limits   {program} limits set rate_limit_tokens_per_second=30{controls}\n"
        );
    }

    /// What to kill, and what to expect.
    fn harm(&self, text: &mut String, pids: &[u32]) {
        let of = |kind: Kind| {
            let parts = self.parts.iter().zip(pids).filter(move |(part, _)| part.kind == kind);
            parts.map(|(_, pid)| pid.to_string()).collect::<Vec<_>>()
        };
        text.push_str("\nBreak it, and see in `watch`, `nodes` and `control` what becomes of it:\n");
        let mut line = |pids: &[String], what: &str| {
            let _ = writeln!(text, "  kill -9 {:24} # {what}", pids.join(" "));
        };
        let (nodes, controls, nats) = (of(Kind::Node), of(Kind::Control), of(Kind::Nats));
        if let [_, .., last] = nodes.as_slice() {
            line(
                std::slice::from_ref(last),
                "a node: its clients go on at another one, with what they missed",
            );
        } else {
            line(&nodes, "the only node: its clients come back when it does, with what they missed");
        }
        if controls.len() > 2 {
            line(&controls[..1], "a replica: when it led, another one leads after about a second");
        }
        let left = controls.len() / 2;
        line(&controls[left..], "no quorum: changes answer 503, everything else goes on");
        if !nats.is_empty() {
            line(&nats, "the bus: publications answer 503 until it is back, sockets stay");
        }
        text.push_str(&match self.restart_seconds {
            0 => "A part that has ended stays down. ".to_owned(),
            seconds => format!(
                "A part that has ended starts again after {seconds} s, under another pid, which is printed here \
                 (--restart-seconds 0 leaves it down). "
            ),
        });
        text.push_str("kill -STOP makes one hang instead, kill -CONT wakes it.\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(nodes: usize, controls: usize) -> (Banner, Vec<Rc<Cell<u32>>>) {
        let kinds = [Kind::Nats].into_iter();
        let kinds = kinds.chain(vec![Kind::Control; controls]).chain(vec![Kind::Node; nodes]);
        let row = |(index, kind): (u16, Kind)| {
            let data = PathBuf::from(format!("/d/{index}"));
            Row { kind, name: format!("p{index}"), port: 32_000 + index, data }
        };
        let parts: Vec<Row> = (0..).zip(kinds).map(row).collect();
        let pids = (100..).take(parts.len()).map(|pid| Rc::new(Cell::new(pid))).collect();
        let banner = Banner {
            program: "hiveops".to_owned(),
            parts,
            asks: Asks::Nothing,
            controls: " --control http://127.0.0.1:32001".to_owned(),
            restart_seconds: 5,
            keeps: false,
            demo: false,
        };
        (banner, pids)
    }

    #[test]
    fn every_part_has_its_pid_port_and_data_and_what_to_kill_fits_the_size() {
        let (three, pids) = banner(3, 3);
        let text = three.text("127.0.0.1:8000".parse().unwrap(), &pids);
        assert!(text.contains("  p4              104  127.0.0.1:32004  /d/4\n"), "{text}");
        assert!(text.contains("kill -9 106 ") && text.contains("kill -9 102 103 "), "{text}");
        assert!(!text.contains("Beware") && text.contains("after 5 s"), "{text}");
        let (small, pids) = banner(1, 2);
        let text = small.text("127.0.0.1:8000".parse().unwrap(), &pids);
        assert!(text.contains("Beware") && text.contains("1 node behind"), "{text}");
        assert!(text.contains("the only node") && text.contains("kill -9 102 "), "{text}");
    }
}
