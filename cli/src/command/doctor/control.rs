//! Whether the replicas that a node would follow answer, and whether the node could start without them.

use std::time::Duration;

use hiveops_node::Config;
use hiveops_node::config::Secret;
use hiveops_node::control::{CacheError, LastView, last_view};
use hiveops_proto::control::ControlStatus;

use super::Finding;
use crate::control_api::{ControlApi, Error};

const DAMAGED_FIX: &str = "remove it, and start the node while a replica answers";

/// One finding about the replicas, one about the view from before.
pub(super) async fn check(config: &Config) -> Vec<Finding> {
    if config.control.is_empty() {
        let count = config.contract.subscriptions.len();
        let version = config.contract.version;
        let text = format!("standalone: its own limits, and contract {version} with {count} subscriptions");
        return vec![Finding::ok("control", text)];
    }
    let secret = config.cluster_secret.as_ref().map(Secret::expose).map(str::to_owned);
    let mut answers = Vec::new();
    for url in &config.control {
        answers.push((url.as_str(), ask(url, secret.clone()).await));
    }
    let last = last_view(config.data_dir.as_deref().unwrap_or(".".as_ref()));
    vec![replicas(&answers, matches!(last, Ok(Some(_)))), view(last, &answers)]
}

/// A replica's status, or what is wrong with it.
type Answer = Result<ControlStatus, String>;

async fn ask(url: &str, secret: Option<String>) -> Answer {
    let api = ControlApi::at(url, secret).map_err(|error| format!("{error:#}"))?;
    api.status().await.map_err(|error| match error.downcast_ref::<Error>() {
        Some(Error::Unreachable { source, .. }) if source.is_timeout() => "does not answer".to_owned(),
        Some(Error::Unreachable { .. }) => "cannot be reached".to_owned(),
        Some(Error::Problem(problem)) => {
            format!("refuses: {}", problem.detail.as_ref().unwrap_or(&problem.title))
        }
        Some(Error::Unexpected { .. }) | None => "is no control replica".to_owned(),
    })
}

fn replicas(answers: &[(&str, Answer)], has_view: bool) -> Finding {
    const WHAT: &str = "control";
    let known: Vec<&ControlStatus> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    let wrong = answers.iter().filter_map(|(url, answer)| Some(format!("{url} {}", answer.as_ref().err()?)));
    let wrong = wrong.collect::<Vec<_>>().join(", ");
    let fix = "start it, or correct HIVEOPS_CONTROL and HIVEOPS_CLUSTER_SECRET";
    let Some(status) = known.iter().find(|status| status.quorum).or_else(|| known.first()) else {
        return match has_view {
            true => Finding::warn(WHAT, format!("{wrong}; the node would start from its last view"), fix),
            false => Finding::fail(WHAT, format!("{wrong}; and the node has no view from before"), fix),
        };
    };
    if known.iter().any(|other| other.cluster_id != status.cluster_id) {
        let fix = "name the replicas of one cluster in HIVEOPS_CONTROL";
        return Finding::fail(WHAT, "the replicas belong to different clusters", fix);
    }
    let leader = status.leader.map_or("none".to_owned(), |id| id.to_string());
    let text = format!(
        "{} of {} replicas answer, version {}: leader {leader}, term {}",
        known.len(),
        answers.len(),
        status.version,
        status.term
    );
    match (status.quorum, wrong.is_empty()) {
        (true, true) => Finding::ok(WHAT, text),
        (true, false) => Finding::warn(WHAT, format!("{text}; but {wrong}"), fix),
        (false, _) => {
            Finding::warn(WHAT, format!("{text}; there is no quorum, so that nothing can be changed"), fix)
        }
    }
}

fn view(last: Result<Option<LastView>, CacheError>, answers: &[(&str, Answer)]) -> Finding {
    const WHAT: &str = "control view";
    let last = match last {
        Ok(Some(last)) => last,
        Ok(None) => return Finding::ok(WHAT, "none yet: a first start needs a replica that answers"),
        Err(error) => return Finding::fail(WHAT, format!("{:#}", anyhow::Error::from(error)), DAMAGED_FIX),
    };
    let ours = last.view.access.cluster_id.as_ref().map(ToString::to_string);
    let theirs = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.cluster_id.clone()).next();
    if ours.is_some() && theirs.is_some() && ours != theirs {
        let fix = "correct HIVEOPS_CONTROL, or choose another HIVEOPS_DATA_DIR";
        return Finding::fail(WHAT, "the last view is of another cluster than the replicas", fix);
    }
    let revision = last.view.revision;
    let age = Duration::from_secs(last.age.as_secs());
    Finding::ok(WHAT, format!("sound, revision {}.{}, written {age:?} ago", revision.term, revision.index))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn status(cluster: &str, quorum: bool) -> Answer {
        let json = serde_json::json!({
            "id": 1, "address": "127.0.0.1:1", "cluster_id": cluster, "role": "leader", "term": 4, "leader": 1,
            "quorum": quorum, "last_log_index": 1, "last_applied_index": 1, "revision": null, "members": [],
            "version": "0.1.0",
        });
        Ok(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn what_answers_and_what_does_not_make_the_finding() {
        let silent = || Err("cannot be reached".to_owned());
        let all = [("http://a", status("c", true)), ("http://b", status("c", true))];
        let finding = replicas(&all, false);
        assert_eq!(finding.level, Level::Ok);
        assert!(finding.text.starts_with("2 of 2 replicas answer"), "{}", finding.text);
        let some = [("http://a", status("c", true)), ("http://b", silent())];
        let finding = replicas(&some, false);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.text.ends_with("but http://b cannot be reached"), "{}", finding.text);
        assert_eq!(replicas(&[("http://a", status("c", false))], true).level, Level::Warn);
        assert_eq!(replicas(&[("http://a", silent())], true).level, Level::Warn);
        assert_eq!(replicas(&[("http://a", silent())], false).level, Level::Fail);
        let two = [("http://a", status("c", true)), ("http://b", status("d", true))];
        assert_eq!(replicas(&two, true).level, Level::Fail);
    }
}
