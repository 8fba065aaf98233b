//! `hiveops control status`, `add`, `remove`, `transfer`: the members of a control cluster.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use hiveops_proto::control::ControlStatus;
use hiveops_proto::path::{CONTROL_LEADER, CONTROL_MEMBER, CONTROL_MEMBERS, CONTROL_PROMOTE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::control_api::{ControlApi, ControlTarget, Error};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// A new replica gets a vote once it has everything; it must first get it.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to ask of a cluster.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show the leader, the term, and how far each replica is
    Status {
        /// Print the replica's answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Add a replica that runs already, and give it a vote once it has everything
    Add {
        /// The replica and where the others reach it
        #[arg(value_name = "ID=HOST:PORT")]
        member: String,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Remove a replica, which then ends
    Remove {
        /// The replica
        id: u64,
        #[command(flatten)]
        target: ControlTarget,
    },
    /// Hand the lead over to a replica
    Transfer {
        /// The replica
        id: u64,
        #[command(flatten)]
        target: ControlTarget,
    },
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    small_runtime()?.block_on(async {
        match command {
            Command::Status { json, target } => status(&ControlApi::new(target)?, json).await,
            Command::Add { member, target } => add(&ControlApi::new(target)?, &member).await,
            Command::Remove { id, target } => {
                let path = CONTROL_MEMBER.replace("{id}", &id.to_string());
                ControlApi::new(target)?.call(Method::DELETE, &path, None).await?;
                output::line(format_args!("replica {id} is not a member any more"))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Transfer { id, target } => {
                ControlApi::new(target)?.call(Method::POST, CONTROL_LEADER, Some(json!({"id": id}))).await?;
                output::line(format_args!("replica {id} leads"))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

/// Prints the status; fails when the cluster could not decide anything.
pub(crate) async fn status(api: &ControlApi, json: bool) -> anyhow::Result<ExitCode> {
    let status = api.status().await?;
    if json {
        output::json(&serde_json::to_value(&status)?)?;
    } else {
        for text in summary(&status) {
            output::line(text)?;
        }
    }
    Ok(if status.quorum { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn add(api: &ControlApi, member: &str) -> anyhow::Result<ExitCode> {
    let parsed = member.split_once('=').and_then(|(id, address)| Some((id.parse::<u64>().ok()?, address)));
    let Some((id, address)) = parsed else {
        return Err(Usage(format!("`{member}` is not a replica; write it like 4=host:7100")).into());
    };
    api.call(Method::POST, CONTROL_MEMBERS, Some(json!({"id": id, "address": address}))).await?;
    output::line(format_args!("replica {id} follows"))?;
    let path = CONTROL_PROMOTE.replace("{id}", &id.to_string());
    let deadline = Instant::now() + CAUGHT_UP_MAX;
    loop {
        match api.call(Method::POST, &path, None).await {
            Ok(_) => break,
            // It is still behind.
            Err(Error::Problem(problem))
                if problem.status == StatusCode::CONFLICT.as_u16() && Instant::now() < deadline =>
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => bail!(error),
        }
    }
    output::line(format_args!("replica {id} has a vote"))?;
    Ok(ExitCode::SUCCESS)
}

fn summary(status: &ControlStatus) -> Vec<String> {
    let none = || "none".to_owned();
    let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
    let revision = status.revision.map_or_else(none, |at| format!("{}.{}", at.term, at.index));
    let quorum = if status.quorum { "yes" } else { "NO: nothing can be changed" };
    let mut lines = vec![
        format!("replica       {} ({}), {}", status.id, status.role, status.version),
        format!("cluster       {}", status.cluster_id.clone().unwrap_or_else(none)),
        format!("leader        {}, term {}", number(status.leader), status.term),
        format!("quorum        {quorum}"),
        format!("revision      {revision}"),
        format!(
            "log           {} stored, {} applied",
            number(status.last_log_index),
            number(status.last_applied_index)
        ),
    ];
    lines.extend(status.members.iter().map(|member| {
        let role = if Some(member.id) == status.leader {
            "leads"
        } else if member.voter {
            "votes"
        } else {
            "follows without a vote"
        };
        let lag = member.lag.map_or("lag unknown".to_owned(), |lag| format!("lag {lag}"));
        format!("member        {} {}, {role}, {lag}", member.id, member.address)
    }));
    lines
}

#[cfg(test)]
mod tests {
    use hiveops_proto::control::{ControlMember, Revision};

    use super::*;

    #[test]
    fn the_summary_shows_leader_term_members_and_lag() {
        let member = |id, voter, lag| ControlMember { id, address: format!("h:{id}"), voter, lag };
        let status = ControlStatus {
            id: 2,
            address: "h:2".to_owned(),
            cluster_id: Some("c".to_owned()),
            role: "follower".to_owned(),
            term: 7,
            leader: Some(1),
            quorum: false,
            last_log_index: Some(9),
            last_applied_index: None,
            revision: Some(Revision { term: 6, index: 8 }),
            members: vec![member(1, true, Some(0)), member(2, true, None), member(3, false, Some(4))],
            version: "0.1.0".to_owned(),
        };
        let lines = summary(&status);
        for line in [
            "leader        1, term 7",
            "quorum        NO: nothing can be changed",
            "revision      6.8",
            "log           9 stored, none applied",
            "member        1 h:1, leads, lag 0",
            "member        2 h:2, votes, lag unknown",
            "member        3 h:3, follows without a vote, lag 4",
        ] {
            assert!(lines.iter().any(|found| found == line), "{lines:?}");
        }
    }
}
