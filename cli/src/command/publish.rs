//! `hiveops publish`: one update or event through the HTTP route, the way any publisher does it.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_proto::http::BroadcastReply;
use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::path::{CORRELATION_HEADER, IDEMPOTENCY_HEADER, WS_BROADCAST};
use hiveops_proto::{CorrelationId, Payload};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use crate::api::{Api, Target};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// What to publish.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where it goes, such as `tasks`
    subscription: String,
    /// What it is, such as `task_update`
    message_type: String,
    /// The data, a JSON object; `-` reads it from standard input, `@file` from a file
    data: String,
    /// Follows the publication to every frame and log line
    #[arg(long, value_name = "ID")]
    correlation_id: Option<CorrelationId>,
    /// Repeating it does not publish twice
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let data = read_data(&args.data)?;
    // What is plainly not publishable need not travel.
    if let Err(error) = Payload::parse(data.trim()) {
        let error = anyhow::Error::from(error);
        return Err(Usage(format!("this cannot be published: {error:#}")).into());
    }
    let api = Api::new(args.target)?;
    let mut request = api
        .request(Method::POST, WS_BROADCAST)
        .query(&[("subscription", &args.subscription), ("message_type", &args.message_type)])
        .header(CONTENT_TYPE, "application/json")
        .body(data);
    if let Some(id) = &args.correlation_id {
        request = request.header(CORRELATION_HEADER, id.as_str());
    }
    if let Some(key) = &args.idempotency_key {
        request = request.header(IDEMPOTENCY_HEADER, key.as_str());
    }
    let reply = small_runtime()?.block_on(api.call(request))?;
    if args.json {
        output::json(&reply)?;
    } else {
        output::line(sentence(&serde_json::from_value(reply).context("the answer is not a publication's")?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_data(argument: &str) -> anyhow::Result<String> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`")),
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            Ok(text)
        }
        None => Ok(argument.to_owned()),
    }
}

fn sentence(reply: &BroadcastReply) -> String {
    let BroadcastReply { subscription, message_type, clients_reached, correlation_id, epoch, seq, .. } =
        reply;
    let verb = if reply.duplicate { "had been published before:" } else { "published" };
    format!(
        "{verb} {message_type} to {subscription} as seq {seq} of epoch {epoch}, \
         {clients_reached} sessions on this node (correlation_id {correlation_id})"
    )
}
