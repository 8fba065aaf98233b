//! The `hiveops` binary: one subcommand per file in `command/`, and the composition of node and control.
//!
//! Nothing here decides anything about frames, sessions or settings; it parses, calls and prints.

mod address;
mod api;
mod command;
mod control_api;
mod demo;
mod https;
mod output;
mod overridden;
mod replica;
mod scratch;
mod serve;
mod settings;
mod signal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hiveops_node::config::Mistakes;

use command::{
    audit, completions, config, contract, control, dev, doctor, drain, healthcheck, keys, limits, node,
    publish, slo, status, tied, trace, users, watch,
};
use output::{Usage, is_broken_pipe};

/// Live dashboards over WebSocket: a node, and the tools to talk to one.
#[derive(Parser)]
#[command(name = "hiveops", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it could not be done: the node refused, cannot be reached, or a check failed
  2    the command line or the configuration is wrong
  130  stopped at once by a second signal
`hiveops slo check` has more, which its own help lists.";

#[derive(Subcommand)]
enum Command {
    /// Start a node with a control replica for development, or a local cluster
    Dev(dev::Args),
    /// Start a node
    Node(node::Args),
    /// Start a control replica, or show and change the members of a cluster
    Control(control::Args),
    /// Publish one update or event
    Publish(publish::Args),
    /// Follow subscriptions, one line per frame
    Watch(watch::Args),
    /// Show the health and the figures of a node, or of the control plane
    Status(status::Args),
    /// Say whether the objectives hold
    Slo(slo::Args),
    /// Show where an update went: who published it, and which sessions of every node have it
    Trace(trace::Args),
    /// Check that everything that was due to sessions is accounted for, on every node
    Audit(audit::Args),
    /// Show the limits in force on a node, and who set them; or change them
    Limits(limits::Args),
    /// Show the contract versions, or put another one in force
    Contract(contract::Args),
    /// Show the keys that sign access tokens, or let a new one take over
    Keys(keys::Args),
    /// Make users and look after them
    Users(users::Args),
    /// Let a node go away: its sessions are sent off one after the other, then it ends
    Drain(drain::Args),
    /// Check that a node can run here with this configuration
    Doctor(doctor::Args),
    /// Ask a node whether it is ready; for containers
    Healthcheck(healthcheck::Args),
    /// Look at the configuration
    Config(config::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
    /// Become another program that does not outlive this one's parent
    #[command(hide = true)]
    Tied(tied::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(args) => dev::run(args),
        Command::Node(args) => node::run(args),
        Command::Control(args) => control::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Status(args) => status::run(args),
        Command::Slo(args) => slo::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Limits(args) => limits::run(args),
        Command::Contract(args) => contract::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Users(args) => users::run(args),
        Command::Drain(args) => drain::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Healthcheck(args) => healthcheck::run(args),
        Command::Config(args) => config::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Tied(args) => tied::run(args),
    };
    match result {
        Ok(code) => code,
        // Whoever reads the output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("hiveops: {error:#}"));
            let wrong_input = error.is::<Mistakes>()
                || error.is::<hiveops_control::config::Mistakes>()
                || error.is::<Usage>();
            ExitCode::from(if wrong_input { 2 } else { 1 })
        }
    }
}
