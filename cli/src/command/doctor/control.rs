//! Whether the replicas that a node would follow answer and are of one mind, and whether the node could start without
//! them.

use std::time::Duration;

use hiveops_node::Config;
use hiveops_node::config::Secret;
use hiveops_node::control::{CacheError, LastView, last_view};
use hiveops_proto::control::{ControlStatus, Revision};
use tokio::time::{Instant, sleep};

use super::{Check, Finding};
use crate::control_api::{ControlApi, Error};

/// How long a replica that is behind may take to get to where the others were; a healthy one takes milliseconds.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const DAMAGED_FIX: &str = "remove it, and start the node while a replica answers";

/// One finding about the replicas, one about their revisions, one about the view from before.
pub(super) async fn check(config: &Config) -> Vec<Finding> {
    if config.control.is_empty() {
        let count = config.contract.subscriptions.len();
        let version = config.contract.version;
        let text = format!("standalone: its own limits, and contract {version} with {count} subscriptions");
        let none = [Check::ControlQuorum, Check::ControlRevision, Check::ControlView];
        return none
            .map(|check| Finding::skip(check, &*text, "set HIVEOPS_CONTROL to have a control plane"))
            .into();
    }
    let secret = config.cluster_secret.as_ref().map(Secret::expose).map(str::to_owned);
    let mut answers = Vec::new();
    for url in &config.control {
        answers.push((url.as_str(), ask(url, secret.clone()).await));
    }
    let last = last_view(config.data_dir.as_deref().unwrap_or(".".as_ref()));
    let behind = behind(&answers, secret.as_deref()).await;
    vec![replicas(&answers, matches!(last, Ok(Some(_)))), revisions(&answers, &behind), view(last, &answers)]
}

/// The replicas that have not got to the newest revision of the answers, although they had time to.
async fn behind<'a>(answers: &[(&'a str, Answer)], secret: Option<&str>) -> Vec<&'a str> {
    let newest = newest(answers);
    let revision_of = |answer: &Answer| answer.as_ref().ok().and_then(|status| status.revision);
    let known = answers.iter().filter(|(_, answer)| answer.is_ok());
    let mut behind: Vec<&str> =
        known.filter(|(_, answer)| revision_of(answer) < newest).map(|(url, _)| *url).collect();
    let until = Instant::now() + CATCH_UP;
    while !behind.is_empty() && Instant::now() < until {
        sleep(LOOK_EVERY).await;
        let mut still = Vec::new();
        for url in behind {
            if revision_of(&ask(url, secret.map(str::to_owned)).await) < newest {
                still.push(url);
            }
        }
        behind = still;
    }
    behind
}

fn newest(answers: &[(&str, Answer)]) -> Option<Revision> {
    answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.revision).max()
}

fn revisions(answers: &[(&str, Answer)], behind: &[&str]) -> Finding {
    let check = Check::ControlRevision;
    let Some(newest) = newest(answers) else {
        return Finding::skip(check, "no replica says which revision it has", "see control.quorum");
    };
    let newest = format!("revision {}.{}", newest.term, newest.index);
    if behind.is_empty() {
        return Finding::ok(check, format!("every replica that answers has {newest}"));
    }
    let text = format!("{} did not get to {newest} within {CATCH_UP:?}", behind.join(", "));
    Finding::warn(check, text, "look at that replica's log, its disk, and its way to the leader")
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
    const CHECK: Check = Check::ControlQuorum;
    let known: Vec<&ControlStatus> = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
    let wrong = answers.iter().filter_map(|(url, answer)| Some(format!("{url} {}", answer.as_ref().err()?)));
    let wrong = wrong.collect::<Vec<_>>().join(", ");
    let fix = "start it, or correct HIVEOPS_CONTROL and HIVEOPS_CLUSTER_SECRET";
    let Some(status) = known.iter().find(|status| status.quorum).or_else(|| known.first()) else {
        return match has_view {
            true => Finding::warn(CHECK, format!("{wrong}; the node would start from its last view"), fix),
            false => Finding::fail(CHECK, format!("{wrong}; and the node has no view from before"), fix),
        };
    };
    if known.iter().any(|other| other.cluster_id != status.cluster_id) {
        let fix = "name the replicas of one cluster in HIVEOPS_CONTROL";
        return Finding::fail(CHECK, "the replicas belong to different clusters", fix);
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
        (true, true) => Finding::ok(CHECK, text),
        (true, false) => Finding::warn(CHECK, format!("{text}; but {wrong}"), fix),
        (false, _) => {
            Finding::warn(CHECK, format!("{text}; there is no quorum, so that nothing can be changed"), fix)
        }
    }
}

fn view(last: Result<Option<LastView>, CacheError>, answers: &[(&str, Answer)]) -> Finding {
    const CHECK: Check = Check::ControlView;
    let last = match last {
        Ok(Some(last)) => last,
        Ok(None) => return Finding::ok(CHECK, "none yet: a first start needs a replica that answers"),
        Err(error) => return Finding::fail(CHECK, format!("{:#}", anyhow::Error::from(error)), DAMAGED_FIX),
    };
    let ours = last.view.access.cluster_id.as_ref().map(ToString::to_string);
    let theirs = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.cluster_id.clone()).next();
    if ours.is_some() && theirs.is_some() && ours != theirs {
        let fix = "correct HIVEOPS_CONTROL, or choose another HIVEOPS_DATA_DIR";
        return Finding::fail(CHECK, "the last view is of another cluster than the replicas", fix);
    }
    let revision = last.view.revision;
    let age = Duration::from_secs(last.age.as_secs());
    Finding::ok(CHECK, format!("sound, revision {}.{}, written {age:?} ago", revision.term, revision.index))
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

    #[tokio::test]
    async fn a_replica_that_stays_behind_is_named() {
        let at = |index: u64| {
            status("c", true)
                .map(|status| ControlStatus { revision: Some(Revision { term: 4, index }), ..status })
        };
        let level = |answers: &[(&str, Answer)], behind: &[&str]| revisions(answers, behind).level;
        let even = [("http://a", at(7)), ("http://b", at(7))];
        assert_eq!(behind(&even, None).await, Vec::<&str>::new());
        assert_eq!(level(&even, &[]), Level::Ok);
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let late = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let uneven = [("http://a", at(7)), (late.as_str(), at(6))];
        assert_eq!(behind(&uneven, None).await, [late.as_str()]);
        let finding = revisions(&uneven, &[&late]);
        assert!(finding.level == Level::Warn && finding.text.contains(&late), "{}", finding.text);
        assert_eq!(level(&[("http://a", Err("cannot be reached".to_owned()))], &[]), Level::Skip);
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
