//! `hiveops watch`: a live tail of subscriptions, one line per frame.
//!
//! Frames go to standard output; what happens to the connection goes to standard error.

use std::process::ExitCode;

use hiveops_client::{Client, Event, Options, Stop};
use hiveops_proto::frame::{Publication, SnapshotItem};
use hiveops_proto::id::InvalidId;
use hiveops_proto::position::parse_since;
use hiveops_proto::{Position, Positions, ServerFrame, SubscriptionName};
use serde_json::json;

use crate::api::Target;
use crate::output;
use crate::serve::small_runtime;
use crate::signal::Signals;

/// What to follow.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The subscriptions, such as `tasks agents`
    #[arg(required = true)]
    subscriptions: Vec<String>,
    /// Print the frames as JSON
    #[arg(long)]
    json: bool,
    /// Go on after these positions: a comma list of name:epoch:seq
    #[arg(long, value_parser = since, default_value = "", hide_default_value = true)]
    since: Since,
    #[command(flatten)]
    target: Target,
}

/// One value for clap, although it is a map.
#[derive(Clone)]
struct Since(Positions);

fn since(text: &str) -> Result<Since, InvalidId> {
    parse_since(text).map(Since)
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let trust = args.target.is_tls().then(|| args.target.trust()).transpose()?;
    let mut options = Options::new(args.target.url);
    options.trust = trust;
    options.subscriptions = args.subscriptions;
    options.token = args.target.token;
    options.since = args.since.0;
    let print = if args.json { print_json } else { print_text };
    small_runtime()?.block_on(follow(options, print))
}

type Print = fn(&Event) -> std::io::Result<()>;

async fn follow(options: Options, print: Print) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut client = tokio::select! {
        client = Client::connect(options) => client?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    loop {
        tokio::select! {
            // Cancel-safe by its own word.
            event = client.next() => match event {
                Some(event) => {
                    print(&event)?;
                    tell(&event);
                }
                None => return ended(client.stopped()),
            },
            () = signals.next() => {
                client.close().await;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

fn ended(stopped: Option<Stop>) -> anyhow::Result<ExitCode> {
    match stopped {
        None | Some(Stop::Normal) => Ok(ExitCode::SUCCESS),
        Some(Stop::Credential) => {
            anyhow::bail!("the node wants another credential (--token or HIVEOPS_TOKEN)")
        }
        Some(Stop::Forbidden) => anyhow::bail!("the node does not allow this connection"),
        Some(Stop::Protocol) => anyhow::bail!("the node found this client to break the protocol"),
        Some(Stop::Refused) => anyhow::bail!("there is no such WebSocket at that address (--url)"),
        Some(Stop::Options) => anyhow::bail!("the connection ended"),
    }
}

/// What people want to know about the connection itself.
fn tell(event: &Event) {
    match event {
        Event::Connected { frame } => {
            output::note(format_args!("connected to {} as {}", frame.node_id, frame.connection_id));
        }
        Event::Gap { subscription, from, to } => {
            output::note(format_args!("{subscription}: {from} to {to} are missing and were asked for again"));
        }
        Event::Omitted { subscription, from, to } => {
            output::note(format_args!("{subscription}: {from} to {to} were left out for later values"));
        }
        Event::EpochChanged { subscription, .. } => {
            output::note(format_args!("{subscription}: its log began anew"))
        }
        Event::Unknown { error, .. } => output::note(format_args!("a frame could not be read: {error}")),
        Event::Disconnected { code, reason, retry_in } => {
            let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
            let next = retry_in.map(|wait| format!(", again in {:.1} s", wait.as_secs_f64()));
            output::note(format_args!("disconnected: {reason}{code}{}", next.unwrap_or_default()));
        }
        Event::Frame(_) | Event::Snapshot { .. } => {}
    }
}

fn print_json(event: &Event) -> std::io::Result<()> {
    match event {
        Event::Frame(frame) => output::line(serde_json::to_string(frame).map_err(std::io::Error::other)?),
        Event::Snapshot { subscription, position, items } => output::line(json!({
            "type": "snapshot", "subscription": subscription,
            "epoch": position.epoch, "seq": position.seq, "items": items,
        })),
        Event::Connected { frame } => {
            let frame = ServerFrame::from(frame.as_ref().clone());
            output::line(serde_json::to_string(&frame).map_err(std::io::Error::other)?)
        }
        Event::Gap { .. }
        | Event::Omitted { .. }
        | Event::EpochChanged { .. }
        | Event::Unknown { .. }
        | Event::Disconnected { .. } => Ok(()),
    }
}

fn print_text(event: &Event) -> std::io::Result<()> {
    match event {
        Event::Frame(ServerFrame::Publication(publication)) => output::line(publication_line(publication)),
        Event::Frame(ServerFrame::ErrorFrame(error)) => {
            output::line(format_args!("{} error {}: {}", error.timestamp, error.code, error.message))
        }
        Event::Frame(ServerFrame::DisconnectNotice(notice)) => {
            output::line(format_args!("{} disconnect_notice {}", notice.timestamp, notice.reason))
        }
        Event::Frame(frame) => output::line(frame.frame_type()),
        Event::Snapshot { subscription, position, items } => {
            output::line(snapshot_line(subscription, position, items.len()))?;
            items.iter().try_for_each(|item| output::line(item_line(subscription, item)))
        }
        Event::Connected { .. }
        | Event::Gap { .. }
        | Event::Omitted { .. }
        | Event::EpochChanged { .. }
        | Event::Unknown { .. }
        | Event::Disconnected { .. } => Ok(()),
    }
}

fn publication_line(publication: &Publication) -> String {
    let Publication { timestamp, subscription, message_type, seq, data, .. } = publication;
    let again = if publication.replayed { " replayed" } else { "" };
    format!("{timestamp} {subscription} {seq} {message_type}{again} {}", data.as_str())
}

fn snapshot_line(subscription: &SubscriptionName, position: &Position, count: usize) -> String {
    format!(
        "snapshot of {subscription} at {subscription}:{}:{}, {count} values",
        position.epoch, position.seq
    )
}

fn item_line(subscription: &SubscriptionName, item: &SnapshotItem) -> String {
    format!("  {subscription} {} {} {}", item.seq, item.message_type, item.data.as_str())
}
