//! `hiveops config show`: every setting with its value, and where it comes from.

mod env_example;

use std::process::ExitCode;

use hiveops_node::config::{Defaults, LogFormat, Shown};
use serde_json::{Map, Value, json};

use crate::output;
use crate::settings::SettingArgs;

/// What to do with the configuration.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print every setting as `hiveops node` would see it; secrets are masked
    Show(Show),
    /// Print every setting as an environment variable with its default: the start of a file of your own
    EnvExample,
}

#[derive(clap::Args)]
struct Show {
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Show(show) => print(show),
        Command::EnvExample => {
            output::line(env_example::text().trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(show: Show) -> anyhow::Result<ExitCode> {
    let shown = show.settings.load(&Defaults::here("info", LogFormat::Json))?.shown;
    if show.json {
        output::json(&as_json(&shown))?;
        return Ok(ExitCode::SUCCESS);
    }
    let names = shown.iter().map(|row| row.setting.name.len()).max().unwrap_or(0);
    let values = shown.iter().map(|row| row.value.chars().count()).max().unwrap_or(0);
    for row in &shown {
        let text = if show.origin {
            format!("{:names$} = {:values$}  # {}", row.setting.name, row.value, origin(row))
        } else {
            format!("{:names$} = {}", row.setting.name, row.value)
        };
        output::line(text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn origin(row: &Shown) -> String {
    if row.place.is_empty() { row.source.to_string() } else { format!("{}: {}", row.source, row.place) }
}

fn as_json(shown: &[Shown]) -> Value {
    let entry = |row: &Shown| {
        let value = json!({
            "value": row.value, "source": row.source, "place": row.place,
            "env": row.setting.env, "flag": format!("--{}", row.setting.flag()),
        });
        (row.setting.name.to_owned(), value)
    };
    Value::Object(shown.iter().map(entry).collect::<Map<_, _>>())
}
