//! The end of a run: nothing is broken any more, and now everything that was acknowledged has to be there, on
//! every member alike.

use std::collections::BTreeMap;
use std::time::Duration;

use hiveops_proto::control::Revision;
use serde::Deserialize;
use tokio::time::sleep;

use super::clients::{Client, Known};
use super::history::{Rule, show};
use super::net::{Weather, within};
use super::world::World;
use crate::state::{Action, Outcome};

/// A cluster in which nothing is broken decides within this.
const DECIDES_WITHIN: Duration = Duration::from_secs(10);
/// And its members have everything within this.
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(15);

/// The part of a snapshot in which the answers to requests are.
#[derive(Deserialize)]
struct Snapshot {
    state: State,
}

#[derive(Deserialize)]
struct State {
    requests: BTreeMap<String, Lasting>,
}

#[derive(Deserialize)]
struct Lasting {
    value: Remembered,
}

#[derive(Deserialize)]
struct Remembered {
    outcome: Outcome,
}

pub(crate) async fn finish(world: &World) {
    world.net.mend();
    world.net.set_weather(Weather { late: 0, reset: 0, twice: 0, dark: 0, ..Weather::default() });
    world.history.note("--- nothing is broken any more");
    for id in world.ids() {
        world.slow_disk(id, 2);
        if !world.is_free(id) {
            world.start(id);
        }
    }
    let hand = Client::new(world, 98);
    let patch = BTreeMap::from([("heartbeat_silence_seconds".to_owned(), 20)]);
    let end = Action::SetLimits { patch };
    let Some(Known::Done(decided)) = within(DECIDES_WITHIN, hand.command("end", &end, "the end")).await
    else {
        return world.history.broke(Rule::Goes, "nothing is broken, and nothing is decided");
    };
    let members = within(CATCHES_UP_WITHIN, members_at(world, decided.revision)).await;
    let Some(members) = members else {
        return world.history.broke(Rule::Goes, "nothing is broken, and a member does not have everything");
    };
    for id in &members {
        judge(world, *id);
    }
}

/// The members, once all of them have applied an entry.
async fn members_at(world: &World, at: Revision) -> Vec<u64> {
    loop {
        let leader = world.leader().and_then(|leader| world.service(leader));
        let members = leader.map(|leader| leader.group.standing().members).unwrap_or_default();
        let has_it = |id: &u64| {
            world.service(*id).is_some_and(|service| service.plane.read(|state| state.applied()) >= at)
        };
        if !members.is_empty() && members.keys().all(has_it) {
            return members.into_keys().collect();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn judge(world: &World, id: u64) {
    let Some((applied, bytes)) = world.state(id) else { return };
    world.history.state(id, applied.index, &bytes);
    let Snapshot { state: State { requests } } = serde_json::from_slice(&bytes).unwrap();
    for (request, at) in world.history.told() {
        let found = requests.get(&request).map(|found| &found.value.outcome);
        if !matches!(found, Some(Outcome::Done { revision, .. }) if *revision == at) {
            let how = format_args!(
                "{request} was acknowledged at {}, and replica {id} knows of it: {found:?}",
                show(at)
            );
            return world.history.broke(Rule::NothingLost, how);
        }
    }
}
