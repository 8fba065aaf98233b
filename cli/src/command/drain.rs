//! `hiveops drain`: lets a node go away, and waits until it has.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hiveops_node::config::DrainWindow;
use hiveops_proto::path::{READYZ, WS_DRAIN, WS_STATS};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::api::{Api, Error, Target};
use crate::output;
use crate::serve::small_runtime;

/// Time between two looks at a node that goes away.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a node may take beyond the time over which it sends its sessions off: 5 s for those that do not
/// close, 2 s for requests, and a disk that is slow to store the rest.
const END_MAX: Duration = Duration::from_secs(30);

/// Which node, and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Send the sessions off over this time, 0 for all at once; what the node is configured for when left
    /// out
    #[arg(long, value_name = "N")]
    seconds: Option<DrainWindow>,
    /// Wait until the node has gone; the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return once the node has begun
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::new(args.target)?;
    small_runtime()?.block_on(async {
        let begun = begin(&api, args.seconds).await?;
        output::line(format_args!(
            "{} drains: {} over {} s",
            begun.node_id,
            sessions(begun.sessions),
            begun.window.as_secs()
        ))?;
        if !args.no_wait {
            let most = begun.window + END_MAX;
            let gone = timeout(most, gone(&api, begun.sessions)).await;
            gone.with_context(|| format!("the node is still there after {} s", most.as_secs()))??;
            output::line(format_args!("{} has gone", begun.node_id))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What the node said when it began.
struct Begun {
    node_id: String,
    sessions: u64,
    window: Duration,
}

async fn begin(api: &Api, window: Option<DrainWindow>) -> anyhow::Result<Begun> {
    let mut request = api.request(Method::POST, WS_DRAIN);
    if let Some(window) = window {
        request = request.query(&[("seconds", window.to_string())]);
    }
    let reply = api.call(request).await?;
    let read = || {
        Some(Begun {
            node_id: reply.get("node_id")?.as_str()?.to_owned(),
            sessions: reply.get("sessions")?.as_u64()?,
            window: Duration::from_secs(reply.get("drain_seconds")?.as_u64()?),
        })
    };
    read().context("the answer is not that of a node that drains")
}

/// Waits until the node does not answer any more, and tells how many sessions are left as they go.
async fn gone(api: &Api, mut told: u64) -> anyhow::Result<()> {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match look(api).await? {
            Seen::Left(left) if left != told => {
                output::line(format_args!("{} left", sessions(left)))?;
                told = left;
            }
            Seen::Left(_) | Seen::Unclear => {}
            Seen::Gone => return Ok(()),
        }
    }
}

/// What one look at the node found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It drains, and has so many sessions.
    Left(u64),
    /// It is going away right now, perhaps.
    Unclear,
    /// Nobody is there, or another one that has taken its place.
    Gone,
}

async fn look(api: &Api) -> anyhow::Result<Seen> {
    match api.get(READYZ).await {
        // A node that drains is never ready again: somebody has started it anew.
        Ok(_) => return Ok(Seen::Gone),
        Err(Error::Unexpected { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => {}
        Err(error) => return without_answer(error),
    }
    match api.get(WS_STATS).await {
        Ok(stats) => {
            let left = stats.pointer("/websocket_stats/active_connections").and_then(Value::as_u64);
            Ok(left.map_or(Seen::Unclear, Seen::Left))
        }
        Err(error) => without_answer(error),
    }
}

fn without_answer(error: Error) -> anyhow::Result<Seen> {
    match error {
        Error::Unreachable { .. } => Ok(Seen::Gone),
        // The connection was closed while it was being used.
        Error::NoAnswer { .. } => Ok(Seen::Unclear),
        Error::Problem(_) | Error::Unexpected { .. } | Error::TooLong { .. } | Error::Setup(_) => {
            bail!(anyhow::Error::from(error).context("the node cannot be asked how far it is"))
        }
    }
}

fn sessions(count: u64) -> String {
    format!("{count} {}", if count == 1 { "session" } else { "sessions" })
}
