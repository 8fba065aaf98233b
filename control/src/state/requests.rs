//! What earlier requests were answered: a request that is repeated, because its answer was lost, is done
//! once and answered alike.

use hiveops_proto::Timestamp;
use hiveops_proto::id::IdempotencyKey;
use serde::{Deserialize, Serialize};

use super::command::Action;
use super::expiring::Expiring;
use super::outcome::{Outcome, Refusal, RefusalCode};

/// How long a request is remembered: longer than any client retries.
pub(crate) const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;

/// How many are remembered: beyond it the oldest is forgotten. It bounds the snapshot to a few MiB.
pub(crate) const REQUESTS_MAX: usize = 10_000;

/// The requests of the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Requests(Expiring<IdempotencyKey, Remembered>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// Tells a repetition from another request that took the same name.
    fingerprint: String,
    outcome: Outcome,
}

impl Requests {
    /// The first answer to the request called `name`, if there was one.
    pub(crate) fn answered(&self, name: &IdempotencyKey, action: &Action) -> Option<Outcome> {
        let remembered = self.0.get(name)?;
        if remembered.fingerprint == fingerprint(action) {
            return Some(remembered.outcome.clone());
        }
        Some(Outcome::Refused(Refusal::new(
            RefusalCode::RequestReused,
            format_args!("request `{name}` was another one before; take a new name"),
        )))
    }

    pub(crate) fn remember(&mut self, name: IdempotencyKey, print: String, outcome: Outcome, now: Timestamp) {
        if self.0.len() >= REQUESTS_MAX {
            self.0.pop_first();
        }
        let remembered = Remembered { fingerprint: print, outcome };
        self.0.insert(name, remembered, now.plus_millis(REMEMBERED_MS));
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.0.expire(now);
    }
}

/// Equal for equal actions. A digest, because an action may carry a secret that must not be kept.
pub(crate) fn fingerprint(action: &Action) -> String {
    let text = match action {
        // Whoever leads makes the key, and another one when the request is repeated: it is none of what was
        // asked for.
        Action::RotateKey { key: _, rotation, overlap: _ } => {
            serde_json::to_string(&("rotate_key", rotation))
        }
        // The same holds for the id of a user, and for the salt of a hash: whoever repeats a request with
        // another password under the same name is answered like the first time.
        Action::AddUser(new) => {
            serde_json::to_string(&("add_user", new.email.to_lowercase(), &new.full_name, new.role))
        }
        // Nor is it what somebody asked for whether the binary that took it in already lets sessions go on.
        Action::SetRole { user, role, narrows: _ } => {
            let asked = Action::SetRole { user: user.clone(), role: *role, narrows: false };
            serde_json::to_string(&asked)
        }
        Action::SetPassword { user, password_hash: _ } => serde_json::to_string(&("set_password", user)),
        action => serde_json::to_string(action),
    };
    hiveops_proto::digest(&text.expect("every map of an action has text for keys"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hiveops_proto::access::Role;
    use hiveops_proto::control::Revision;
    use hiveops_proto::id::UserId;

    use super::super::outcome::Reply;
    use super::super::secret::Secret;
    use super::super::users::NewUser;
    use super::*;

    fn action(value: u64) -> Action {
        Action::SetLimits { patch: BTreeMap::from([("outbox_frames_max".to_owned(), value)]) }
    }

    fn done(index: u64) -> Outcome {
        Outcome::Done { revision: Revision { term: 1, index }, changed: true, reply: Reply::Empty }
    }

    fn remember(requests: &mut Requests, name: &IdempotencyKey, index: u64, ms: i64) {
        let now = Timestamp::from_millis(ms);
        requests.remember(name.clone(), fingerprint(&action(1)), done(index), now);
    }

    #[test]
    fn a_repetition_gets_the_first_answer_and_a_name_taken_twice_is_refused() {
        let mut requests = Requests::default();
        let name = IdempotencyKey::new("r-1").unwrap();
        assert_eq!(requests.answered(&name, &action(1)), None);
        remember(&mut requests, &name, 7, 0);
        assert_eq!(requests.answered(&name, &action(1)), Some(done(7)));
        let Some(Outcome::Refused(refusal)) = requests.answered(&name, &action(2)) else {
            panic!("another request was answered");
        };
        assert_eq!(refusal.code, RefusalCode::RequestReused);
    }

    #[test]
    fn what_only_a_leader_chose_does_not_tell_a_repetition_apart() {
        let add = |id: &str, hash: &str, role| {
            Action::AddUser(Box::new(NewUser {
                id: UserId::new(id).unwrap(),
                email: "Ada@example.org".to_owned(),
                full_name: "Ada".to_owned(),
                role,
                password_hash: Secret::new(hash),
            }))
        };
        let first = fingerprint(&add("u1", "salt1", Role::Viewer));
        assert_eq!(first, fingerprint(&add("u2", "salt2", Role::Viewer)));
        assert_ne!(first, fingerprint(&add("u1", "salt1", Role::Operator)));
        let set = |user: &str, hash: &str| Action::SetPassword {
            user: UserId::new(user).unwrap(),
            password_hash: Secret::new(hash),
        };
        assert_eq!(fingerprint(&set("u1", "salt1")), fingerprint(&set("u1", "salt2")));
        assert_ne!(fingerprint(&set("u1", "salt1")), fingerprint(&set("u2", "salt1")));
    }

    #[test]
    fn the_window_has_an_end_in_time_and_in_number() {
        let mut requests = Requests::default();
        let name = |number: usize| IdempotencyKey::new(&format!("r-{number:05}")).unwrap();
        for number in 0..=REQUESTS_MAX {
            remember(&mut requests, &name(number), 1, number as i64);
        }
        assert_eq!(requests.0.len(), REQUESTS_MAX);
        assert_eq!(requests.answered(&name(0), &action(1)), None, "the oldest made room");
        requests.expire(Timestamp::from_millis(500).plus_millis(REMEMBERED_MS));
        assert_eq!(requests.answered(&name(500), &action(1)), None);
        assert!(requests.answered(&name(501), &action(1)).is_some());
    }
}
