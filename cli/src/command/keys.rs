//! `hiveops keys`: the keys that sign access tokens, as far as anybody may see them, and their rotation.

use std::process::ExitCode;

use hiveops_control::state::{KeyState, PublicKey};
use hiveops_proto::path::{CONTROL_KEYS, CONTROL_KEYS_ROTATE};
use reqwest::Method;
use serde_json::{Value, json};

use crate::control_api::{ControlApi, ControlTarget};
use crate::output;
use crate::serve::small_runtime;

/// What to do with the keys.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the keys that are good now, without their private halves
    List {
        /// Print the control plane's answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Let a new key take over: nodes know it a minute before it signs, and the old one until nothing that it
    /// signed is good any more
    Rotate {
        /// The old keys are in the wrong hands: everything that they signed is refused at once
        #[arg(long)]
        urgent: bool,
        #[command(flatten)]
        target: ControlTarget,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    small_runtime()?.block_on(async {
        match args.command {
            Command::List { json, target } => list(&ControlApi::new(target)?, json).await,
            Command::Rotate { urgent, target } => rotate(&ControlApi::new(target)?, urgent).await,
        }
    })
}

async fn list(api: &ControlApi, json: bool) -> anyhow::Result<ExitCode> {
    let mut answer = api.call(Method::GET, CONTROL_KEYS, None).await?;
    if json {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let keys: Vec<PublicKey> = serde_json::from_value(answer["keys"].take())?;
    for key in &keys {
        output::line(row(key))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(key: &PublicKey) -> String {
    let (kid, from) = (&key.kid, key.sign_from);
    let retired = key.retire_after.map_or(String::new(), |end| format!(", is retired at {end}"));
    match key.state {
        KeyState::Published => format!("{kid}  published, signs from {from}{retired}"),
        KeyState::Signing => format!("{kid}  signing since {from}{retired}"),
        KeyState::Retiring => format!("{kid}  retiring, signed from {from}{retired}"),
    }
}

async fn rotate(api: &ControlApi, urgent: bool) -> anyhow::Result<ExitCode> {
    let answer = api.call(Method::POST, CONTROL_KEYS_ROTATE, Some(json!({"urgent": urgent}))).await?;
    let text = |name| answer.get(name).and_then(Value::as_str).unwrap_or("unknown");
    let (kid, from) = (text("kid"), text("sign_from"));
    output::line(match urgent {
        true => format!("key {kid} signs, everything that was signed before is refused"),
        false => format!("key {kid} is published, and signs from {from}"),
    })?;
    Ok(ExitCode::SUCCESS)
}
