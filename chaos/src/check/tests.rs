//! Histories in which something is wrong, each next to the good one that it was made from.

use super::*;
use crate::history::{Heard, Life, Race, Track, Watcher};

const LIFE: Life = Life(0xa);
const CHANNEL: usize = 1;
const KEY: KeyId = 7;

fn place(seq: u64) -> Place {
    Place { life: LIFE, seq }
}

fn event(token: Token, seq: u64) -> Publication {
    Publication { channel: CHANNEL, token, key: None, outcome: Outcome::Acked(place(seq)) }
}

fn update(token: Token, seq: u64) -> Publication {
    Publication { key: Some(KEY), ..event(token, seq) }
}

fn delivered(seq: u64, token: Token) -> Heard {
    Heard::Delivered { place: place(seq), prev_seq: seq - 1, token }
}

fn snapshot(seq: u64, values: &[(KeyId, u64, Token)]) -> Heard {
    Heard::Snapshot { place: place(seq), values: values.into() }
}

fn watcher(number: usize, heard: Vec<Heard>, end: &[(KeyId, Token)]) -> Watcher {
    let tracks = vec![Track::default(), Track { heard, end: end.to_vec() }];
    Watcher { number, tracks, ..Watcher::default() }
}

/// An event, two values of a key and an event; what each of two watchers heard of it.
fn good() -> History {
    let publications = vec![event(11, 1), update(12, 2), update(13, 3), event(14, 4)];
    let all = [delivered(1, 11), delivered(2, 12), delivered(3, 13), delivered(4, 14)];
    let whole = [vec![snapshot(0, &[])], all.to_vec()].concat();
    let resumed = vec![
        snapshot(0, &[]),
        delivered(1, 11),
        Heard::Omitted { from: 2, to: 2 },
        delivered(3, 13),
        delivered(4, 14),
    ];
    let end = [(KEY, 13)];
    let watchers = vec![watcher(0, whole, &end), watcher(1, resumed, &end)];
    History { publications, watchers, races: Vec::new() }
}

/// What is wrong with the good history after this change to the second watcher's track.
fn broken(change: impl FnOnce(&mut Track)) -> Vec<Violation> {
    let mut history = good();
    change(&mut history.watchers[1].tracks[CHANNEL]);
    check(&history).1
}

#[test]
fn a_good_history_has_no_violations_and_the_figures_count_it() {
    let (figures, found) = check(&good());
    assert_eq!(found, []);
    let expected = Figures { acked: 4, delivered: 7, omitted: 1, snapshots: 2, ..Figures::default() };
    assert_eq!(figures, expected);
}

#[test]
fn a_snapshot_comes_over_what_it_holds() {
    let heard = vec![snapshot(0, &[]), delivered(1, 11), snapshot(4, &[(KEY, 3, 13)])];
    let mut history = good();
    history.watchers[1].tracks[CHANNEL].heard = heard;
    let (figures, found) = check(&history);
    assert_eq!((found, figures.by_snapshot), (vec![], 3));
}

#[test]
fn an_acknowledged_event_that_never_came_is_lost() {
    let found = broken(|track| {
        track.heard.remove(1);
        track.heard[1] = Heard::Omitted { from: 2, to: 2 };
    });
    let lost = Violation::Lost { watcher: 1, channel: CHANNEL, place: place(1), token: 11 };
    assert!(found.contains(&lost), "{found:?}");
}

#[test]
fn an_acknowledged_event_in_a_hole_that_the_node_denies_is_lost() {
    // `prev_seq` says that there was nothing at 3.
    let found = broken(|track| {
        track.heard.truncate(3);
        track.heard.push(Heard::Delivered { place: place(4), prev_seq: 2, token: 14 });
    });
    let lost = Violation::Lost { watcher: 1, channel: CHANNEL, place: place(3), token: 13 };
    assert!(found.contains(&lost), "{found:?}");
}

#[test]
fn a_tail_that_never_came_is_lost() {
    let found = broken(|track| {
        track.heard.pop();
    });
    assert_eq!(found, [Violation::Lost { watcher: 1, channel: CHANNEL, place: place(4), token: 14 }]);
}

#[test]
fn a_hole_that_nobody_announced_is_one_even_when_nothing_acknowledged_is_in_it() {
    let found = broken(|track| {
        track.heard.push(Heard::Delivered { place: place(9), prev_seq: 8, token: NO_TOKEN });
    });
    assert_eq!(found, [Violation::Hole { watcher: 1, channel: CHANNEL, from: 5, to: 8 }]);
}

#[test]
fn what_comes_twice_is_repeated() {
    let found = broken(|track| track.heard.push(delivered(4, 14)));
    assert_eq!(found, [Violation::Repeated { watcher: 1, channel: CHANNEL, place: place(4) }]);
}

#[test]
fn an_event_may_not_be_left_out() {
    let found = broken(|track| {
        track.heard.truncate(4);
        track.heard.push(Heard::Omitted { from: 4, to: 4 });
    });
    assert_eq!(found, [Violation::EventOmitted { watcher: 1, channel: CHANNEL, place: place(4) }]);
}

#[test]
fn a_value_may_be_left_out_only_for_a_later_one() {
    let found = broken(|track| {
        track.heard[3] = Heard::Omitted { from: 3, to: 3 };
    });
    let none = |seq| Violation::NoLaterValue { watcher: 1, channel: CHANNEL, key: KEY, place: place(seq) };
    assert_eq!(found, [none(2), none(3)]);
}

#[test]
fn a_later_value_of_unknown_outcome_is_a_later_value() {
    let mut history = good();
    history.publications.push(Publication { outcome: Outcome::Unknown, ..update(15, 0) });
    for (track, omitted) in [(0, false), (1, true)] {
        let track = &mut history.watchers[track].tracks[CHANNEL];
        if omitted {
            track.heard[3] = Heard::Omitted { from: 3, to: 3 };
        }
        track.heard.push(delivered(5, 15));
        track.end = vec![(KEY, 15)];
    }
    assert_eq!(check(&history).1, []);
}

#[test]
fn one_place_cannot_be_acknowledged_to_two_publications() {
    let mut history = good();
    history.publications.push(event(15, 4));
    let found = check(&history).1;
    assert!(
        found.contains(&Violation::PlaceTwice { channel: CHANNEL, place: place(4), tokens: [14, 15] }),
        "{found:?}"
    );
}

#[test]
fn a_place_holds_what_was_acknowledged_for_it() {
    let found = broken(|track| track.heard[4] = delivered(4, 99));
    let other = Violation::OtherData { channel: CHANNEL, place: place(4), expected: 14, got: 99 };
    assert_eq!(found, [other]);
}

#[test]
fn two_watchers_get_the_same_at_one_place_acknowledged_or_not() {
    let mut history = good();
    history.watchers[0].tracks[CHANNEL].heard.push(delivered(5, 98));
    history.watchers[1].tracks[CHANNEL].heard.push(delivered(5, 99));
    let other = Violation::OtherData { channel: CHANNEL, place: place(5), expected: 98, got: 99 };
    assert_eq!(check(&history).1, [other]);
}

#[test]
fn a_publication_that_was_tried_again_is_stored_once() {
    let found = broken(|track| track.heard.push(delivered(5, 14)));
    let twice = Violation::StoredTwice { channel: CHANNEL, token: 14, places: [place(4), place(5)] };
    assert_eq!(found, [twice]);
}

#[test]
fn another_life_begins_with_a_snapshot() {
    let found = broken(|track| {
        let place = Place { life: Life(0xb), seq: 1 };
        track.heard.push(Heard::Delivered { place, prev_seq: 0, token: NO_TOKEN });
    });
    let place = Place { life: Life(0xb), seq: 1 };
    assert_eq!(found, [Violation::Unannounced { watcher: 1, channel: CHANNEL, place }]);
}

#[test]
fn a_snapshot_does_not_turn_back_the_clock_and_holds_every_value() {
    let found = broken(|track| track.heard.push(snapshot(3, &[(KEY, 3, 13)])));
    assert!(found.contains(&Violation::WentBack { watcher: 1, channel: CHANNEL, place: place(3) }));
    for values in [&[][..], &[(KEY, 2, 12)]] {
        let found = broken(|track| track.heard.push(snapshot(4, values)));
        let stale = Violation::StaleSnapshot { watcher: 1, channel: CHANNEL, place: place(4), key: KEY };
        assert!(found.contains(&stale), "{found:?}");
    }
}

#[test]
fn in_the_end_every_key_has_its_last_acknowledged_value() {
    for (end, got) in [(vec![(KEY, 12)], Some(12)), (vec![], None)] {
        let found = broken(|track| track.end = end);
        let wrong = Violation::WrongEnd { watcher: 1, channel: CHANNEL, key: KEY, expected: 13, got };
        assert_eq!(found, [wrong, Violation::Disagree { watchers: [0, 1], channel: CHANNEL, key: KEY }]);
    }
}

#[test]
fn watchers_agree_about_what_nobody_acknowledged_too() {
    let found = broken(|track| track.end.push((8, 21)));
    assert_eq!(found, [Violation::Disagree { watchers: [0, 1], channel: CHANNEL, key: 8 }]);
}

#[test]
fn a_refusal_and_a_watcher_that_did_not_come_to_the_end_are_violations() {
    let mut history = good();
    history.publications.push(Publication { outcome: Outcome::Refused(422), ..event(15, 0) });
    history.watchers[0].failure = Some("it stopped".to_owned());
    let found = check(&history).1;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], Violation::Refused { channel: CHANNEL, token: 15, status: 422 });
    assert_eq!(found[1].to_string(), "watcher 0 did not come to the end: it stopped");
}

/// What is wrong with one visit beside the good history.
fn visited(heard: Vec<Heard>) -> Vec<Violation> {
    let mut history = good();
    history.races.push(Race { number: 9, channel: CHANNEL, heard, contested: true });
    check(&history).1
}

#[test]
fn a_visit_begins_with_a_snapshot_or_where_it_asked_and_has_everything_until_it_ends() {
    let since = |seq| Heard::Since { place: place(seq) };
    assert_eq!(visited(vec![since(1), delivered(2, 12)]), [], "what comes after it is not for it");
    assert_eq!(visited(vec![since(1), Heard::Omitted { from: 2, to: 2 }, delivered(3, 13)]), []);
    assert_eq!(visited(vec![snapshot(3, &[(KEY, 3, 13)]), delivered(4, 14)]), []);
    let lost = Violation::Lost { watcher: 9, channel: CHANNEL, place: place(1), token: 11 };
    let hole = Violation::Hole { watcher: 9, channel: CHANNEL, from: 1, to: 1 };
    assert_eq!(visited(vec![since(0), delivered(2, 12)]), [hole, lost]);
    let repeated = Violation::Repeated { watcher: 9, channel: CHANNEL, place: place(2) };
    assert_eq!(visited(vec![since(2), delivered(2, 12)]), [repeated]);
    let early = Violation::Unannounced { watcher: 9, channel: CHANNEL, place: place(2) };
    assert_eq!(visited(vec![delivered(2, 12), delivered(3, 13)]), [early]);
    let owed = Violation::NoLaterValue { watcher: 9, channel: CHANNEL, key: KEY, place: place(3) };
    assert_eq!(visited(vec![since(2), Heard::Omitted { from: 3, to: 3 }, delivered(4, 14)]), [owed]);
}
