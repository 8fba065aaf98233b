//! A process of the cluster: started, started again when it ended, and ended with the cluster.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::output;

/// A part that ends this soon after its start, so often in a row, has something that a start does not cure.
const QUICK: Duration = Duration::from_secs(10);
const QUICK_ENDS_MAX: u32 = 5;
/// For a part that does not drain sessions: what was acknowledged is on the disk.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Of a log, in an error.
const SHOWN_LINES: usize = 5;

/// In the order in which they are told to end: nobody loses what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Node,
    Control,
    Nats,
}

/// What holds for all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    /// Those up to this kind end.
    End(Kind),
    Kill,
}

/// What is started, and where its traces are.
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// Variables that it gets or, without a value, does not inherit.
    pub(super) env: Vec<(&'static str, Option<String>)>,
    pub(super) port: u16,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    /// Of its process, the last one when it does not run. Shared with whoever prints it.
    pub(super) pid: Rc<Cell<u32>>,
}

/// How parts are looked after.
#[derive(Clone)]
pub(super) struct Care {
    /// This program, which ties a part to this process.
    pub(super) program: PathBuf,
    /// Before a part is started again; none leaves it down.
    pub(super) restart: Option<Duration>,
    /// For a node to send its sessions off.
    pub(super) drain: Duration,
    pub(super) orders: watch::Receiver<Order>,
    /// Who hears that a part has ended by itself; nobody does when the cluster is up.
    pub(super) ended: mpsc::Sender<String>,
}

impl Part {
    /// Keeps it running until all are told to end. Must run in the thread that ends last: the kernel kills the part
    /// when the thread that started it ends.
    pub(super) async fn keep(self, mut care: Care) {
        let mut quick_ends = 0;
        loop {
            let started = Instant::now();
            let how = match self.start(&care.program) {
                Ok(mut child) => tokio::select! {
                    status = child.wait() => describe(status),
                    () = told_to_end(&mut care.orders, self.kind) => return self.end(child, care).await,
                },
                Err(error) => format!("cannot be started: {error:#}"),
            };
            quick_ends = if started.elapsed() < QUICK { quick_ends + 1 } else { 0 };
            let pause = care.restart.filter(|_| quick_ends < QUICK_ENDS_MAX);
            let next = match pause {
                Some(pause) => format!("it starts again in {} s", pause.as_secs()),
                None => "it stays down".to_owned(),
            };
            say(&format!("{} {how}; {next}. Its log is {}", self.name, self.log.display()));
            // A full queue has been heard already.
            let _ = care.ended.try_send(format!("{} {how}{}", self.name, last_lines(&self.log)));
            tokio::select! {
                () = told_to_end(&mut care.orders, self.kind) => return,
                () = wait(pause) => {}
            }
        }
    }

    fn start(&self, tied: &Path) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(tied);
        command.arg("tied").arg(std::process::id().to_string()).arg(&self.program).args(&self.args);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Ctrl-C is for this process alone, which then ends the parts in order.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", tied.display()))?;
        if let Some(pid) = child.id()
            && self.pid.replace(pid) != 0
        {
            say(&format!("{} starts again, pid {pid}", self.name));
        }
        Ok(child)
    }

    /// Asks it to end, and kills it when it does not or when there is no time.
    async fn end(&self, mut child: Child, mut care: Care) {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // One that has just ended has no number any more.
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let within = END_WITHIN + if self.kind == Kind::Node { care.drain } else { Duration::ZERO };
        let ended = tokio::select! {
            _ = child.wait() => true,
            () = told_to_die(&mut care.orders) => false,
            () = sleep(if asked { within } else { Duration::ZERO }) => false,
        };
        if ended {
            return;
        }
        if let Err(error) = child.kill().await {
            tracing::warn!(part = self.name, error = %error, "part not killed");
        }
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("has ended ({status})"),
        Err(error) => format!("is lost: {error}"),
    }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Cancel-safe: the order stays.
async fn told_to_end(orders: &mut watch::Receiver<Order>, kind: Kind) {
    // An error means that nobody gives orders any more.
    let _ = orders
        .wait_for(|order| match order {
            Order::Run => false,
            Order::End(up_to) => kind <= *up_to,
            Order::Kill => true,
        })
        .await;
}

async fn told_to_die(orders: &mut watch::Receiver<Order>) {
    let _ = orders.wait_for(|order| *order == Order::Kill).await;
}

/// The end of a log, for an error: the log may go with the cluster.
pub(super) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let skipped = text.lines().count().saturating_sub(SHOWN_LINES);
    text.lines().skip(skipped).map(|line| format!("\n  {line}")).collect()
}

/// To whoever tries things out; when nobody reads, nothing is lost.
pub(super) fn say(text: &str) {
    let _ = output::line(text);
}
