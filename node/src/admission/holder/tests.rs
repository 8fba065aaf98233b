//! The rules by example, and nodes that borrow from the real lender in a world that loses, delays, repeats and
//! reorders what they say, freezes and kills them, and changes leaders and limits: never is more in use than
//! the lender counts, and never counts it more than the limit.

mod world;

use hiveops_proto::lease::{LeaseGrant, Wanted};
use proptest::prelude::*;

use super::*;
use world::{LEASE, World, limits};

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn revision(index: u64) -> Revision {
    Revision { term: 1, index }
}

/// A node that knows of a limit of 100 in all, and of no other.
fn holder() -> Holder {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(100, 0), at(0));
    holder
}

fn answer(ask: &LeaseAsk, total: Option<u64>, scarce: bool) -> LeaseAnswer {
    let grant = LeaseGrant { seq: ask.seq, lease_ms: LEASE, total, users: None, scarce };
    LeaseAnswer { grant, revision: revision(2) }
}

/// Takes as many places as there are, `most` at most.
fn fill(holder: &mut Holder, most: usize, now: Moment) -> usize {
    (0..most).take_while(|_| holder.admit(None, now).is_some()).count()
}

#[test]
fn nothing_is_held_before_the_first_grant_and_as_much_as_granted_after_it() {
    let mut holder = holder();
    assert_eq!(holder.due(), Some(at(0)));
    assert_eq!(holder.admit(None, at(0)), None);
    (0..7).for_each(|_| holder.wait(None));
    let ask = holder.ask(at(5));
    assert_eq!((ask.seq, ask.total), (1, Wanted { keep: 0, want: 7 }), "all that wait share an ask");
    assert!(holder.answer(&answer(&ask, Some(5), true), at(9)));
    assert_eq!(fill(&mut holder, 10, at(9)), 5);
    assert!(!holder.answer(&answer(&ask, Some(9), true), at(9)), "it was answered before");
}

#[test]
fn an_ask_without_an_answer_binds_the_node_and_the_next_one_frees_it() {
    let mut holder = holder();
    (0..10).for_each(|_| holder.wait(None));
    let first = holder.ask(at(0));
    holder.answer(&answer(&first, Some(10), false), at(1));
    (0..10).for_each(|_| holder.wait_no_more(None));
    assert_eq!(fill(&mut holder, 4, at(1)), 4);
    let less = holder.ask(at(2));
    assert_eq!(less.total, Wanted { keep: 4, want: 4 }, "what nobody uses is given back");
    assert_eq!(holder.admit(None, at(3)), None, "it promised");
    holder.wait(None);
    let more = holder.ask(at(4));
    assert_eq!(more.total, Wanted { keep: 4, want: 5 });
    assert!(!holder.answer(&answer(&less, Some(4), false), at(5)), "a later ask is under way");
    assert!(holder.answer(&answer(&more, Some(5), false), at(6)));
    assert_eq!(fill(&mut holder, 5, at(6)), 1);
}

#[test]
fn a_lease_counts_from_when_the_ask_was_sent_and_then_everything_is_lost() {
    let mut holder = holder();
    holder.wait(None);
    let ask = holder.ask(at(100));
    holder.answer(&answer(&ask, Some(1), false), at(900));
    let place = holder.admit(None, at(900)).unwrap();
    assert_eq!(holder.good_until(), Some(at(100 + LEASE)));
    assert_eq!(holder.era(at(99 + LEASE)), place);
    assert_ne!(holder.era(at(100 + LEASE)), place, "whoever has a place of before has lost it");
    assert_eq!(holder.admit(None, at(100 + LEASE)), None);
    let again = holder.ask(at(200 + LEASE));
    assert_eq!(again.total.keep, 1, "its socket is still being closed");
    holder.answer(&answer(&again, Some(1), false), at(200 + LEASE));
    assert_eq!((holder.admit(None, at(210 + LEASE)), holder.surplus().next()), (None, None));
    holder.leave(None, place, true);
    assert!(holder.admit(None, at(220 + LEASE)).is_some());
}

#[test]
fn an_answer_that_comes_after_its_lease_is_of_no_use() {
    let mut holder = holder();
    holder.wait(None);
    let ask = holder.ask(at(0));
    holder.answer(&answer(&ask, Some(9), false), at(LEASE));
    assert_eq!(holder.admit(None, at(LEASE)), None);
}

#[test]
fn a_grant_below_what_is_used_makes_a_surplus_that_counts_until_it_has_gone() {
    let mut holder = holder();
    (0..10).for_each(|_| holder.wait(None));
    let ask = holder.ask(at(0));
    holder.answer(&answer(&ask, Some(10), false), at(0));
    (0..10).for_each(|_| holder.wait_no_more(None));
    let eras: Vec<Era> = (0..10).map(|_| holder.admit(None, at(1)).unwrap()).collect();
    let ask = holder.ask(at(300));
    holder.answer(&answer(&ask, Some(7), true), at(301));
    assert_eq!(holder.surplus().next(), Some((None, 3)));
    holder.told(None, eras[0], 3);
    assert_eq!(holder.surplus().next(), None, "nobody else has to go");
    assert_eq!(holder.ask(at(310)).total.keep, 10, "they have not gone yet");
    let ask = holder.ask(at(320));
    holder.answer(&answer(&ask, Some(7), true), at(321));
    (0..3).for_each(|_| holder.leave(None, eras[0], true));
    assert_eq!(holder.due(), Some(at(320 + ASK_EVERY_MS)), "control hears of it at once");
    assert_eq!(holder.ask(at(350)).total, Wanted { keep: 7, want: 7 });
}

#[test]
fn without_a_limit_nothing_is_lost_and_the_node_renews_all_the_same() {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(0, 0), at(0));
    let ask = holder.ask(at(0));
    holder.answer(&answer(&ask, None, false), at(1));
    assert_eq!(fill(&mut holder, 500, at(1)), 500);
    assert_eq!(holder.due(), Some(at(LEASE / 3)));
    let ask = holder.ask(at(333));
    assert_eq!(ask.total, Wanted { keep: 500, want: 500 + 125 + 16 });
    assert_eq!((holder.good_until(), holder.era(at(LEASE * 9))), (None, Era::default()));
    assert_eq!(fill(&mut holder, 1, at(LEASE * 9)), 1);
}

#[test]
fn a_limit_that_is_switched_on_finds_the_sessions_that_are_there() {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(0, 0), at(0));
    assert_eq!(fill(&mut holder, 30, at(0)), 30);
    // Control was away for long, and is back with a limit.
    holder.view(revision(2), &limits(10, 0), at(LEASE * 5));
    assert_eq!((holder.due(), holder.admit(None, at(LEASE * 5))), (Some(at(0)), None));
    assert_eq!(holder.era(at(LEASE * 5)), Era::default(), "control is asked first");
    let ask = holder.ask(at(LEASE * 5 + 1));
    assert_eq!(ask.total, Wanted { keep: 30, want: 30 });
    assert_eq!(holder.surplus().next(), None, "nobody has said so yet");
    holder.answer(&LeaseAnswer { revision: revision(3), ..answer(&ask, Some(10), true) }, at(LEASE * 5 + 2));
    assert_eq!(holder.surplus().next(), Some((None, 20)));
}

#[test]
fn the_later_of_view_and_grant_says_whether_there_is_a_limit() {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(0, 0), at(0));
    let ask = holder.ask(at(0));
    // The view with the limit is still on its way.
    holder.answer(&answer(&ask, Some(1), true), at(1));
    assert_eq!(fill(&mut holder, 5, at(1)), 1);
    holder.view(revision(2), &limits(1, 0), at(2));
    assert_eq!(fill(&mut holder, 5, at(2)), 0);
    // A later view takes it back, and control is away.
    holder.view(revision(3), &limits(0, 0), at(3));
    assert_eq!((fill(&mut holder, 5, at(3)), holder.good_until()), (5, None));
    // It is there again: the old grant does not end anybody, and lets nobody in.
    holder.view(revision(4), &limits(9, 0), at(4));
    assert_eq!(holder.surplus().next(), None);
    assert_eq!(holder.admit(None, at(4)), None);
}

#[test]
fn asks_come_thrice_a_lease_and_sooner_when_somebody_waits_or_others_want_what_is_idle() {
    let mut holder = holder();
    let ask = holder.ask(at(0));
    holder.answer(&answer(&ask, Some(0), false), at(1));
    assert_eq!(holder.due(), Some(at(LEASE / 3)));
    holder.wait(None);
    assert_eq!(holder.due(), Some(at(ASK_EVERY_MS)));
    let ask = holder.ask(at(30));
    holder.answer(&answer(&ask, Some(0), true), at(31));
    assert_eq!(holder.due(), Some(at(30 + ASK_AGAIN_MS)), "there is nothing to be had just now");
    let ask = holder.ask(at(300));
    holder.answer(&answer(&ask, Some(1), true), at(301));
    let era = holder.admit(None, at(301)).unwrap();
    holder.wait_no_more(None);
    assert_eq!(holder.due(), Some(at(300 + LEASE / 3)));
    holder.lease_ms = LEASE * 10;
    holder.leave(None, era, false);
    assert_eq!(holder.due(), Some(at(300 + GIVE_BACK_MS)));
    holder.end();
    assert_eq!((holder.due(), holder.admit(None, at(400))), (None, None));
}

#[test]
fn a_little_more_than_needed_is_borrowed_while_there_is_plenty() {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(1_280, 0), at(0));
    let ask = holder.ask(at(0));
    assert_eq!(ask.total, Wanted { keep: 0, want: 10 });
    holder.answer(&answer(&ask, Some(10), true), at(0));
    assert_eq!(holder.ask(at(1)).total, Wanted { keep: 0, want: 0 }, "but not when it is scarce");
    holder.view(revision(3), &limits(1_000_000, 0), at(2));
    holder.scarce = false;
    assert_eq!(holder.headroom(), HEADROOM_MAX);
    holder.drain();
    assert_eq!(holder.headroom(), 0, "and not when the node goes away");
}

/// A node of a cluster in which a user may have 2 connections, and all together 3.
fn holder_of_users() -> (Holder, UserId) {
    let mut holder = Holder::new(NodeId::new("n").unwrap(), 1);
    holder.view(revision(1), &limits(3, 2), at(0));
    (holder, UserId::new("ada").unwrap())
}

fn answer_of_user(ask: &LeaseAsk, total: u64, user: Option<(&UserId, u64)>) -> LeaseAnswer {
    let mut answer = answer(ask, Some(total), false);
    answer.grant.users = Some(user.into_iter().map(|(user, granted)| (user.clone(), granted)).collect());
    answer
}

#[test]
fn that_a_user_is_full_is_said_only_when_control_has_said_so() {
    let (mut holder, ada) = holder_of_users();
    assert_eq!(holder.why_none(Some(&ada), at(0)), NoPlace::NotLent, "control was never heard");
    holder.wait(Some(&ada));
    let ask = holder.ask(at(0));
    assert_eq!(ask.users[&ada], Wanted { keep: 0, want: 1 });
    assert_eq!(holder.why_none(Some(&ada), at(1)), NoPlace::NotLent, "the ask is under way");
    holder.answer(&answer_of_user(&ask, 1, Some((&ada, 0))), at(2));
    assert_eq!(holder.admit(Some(&ada), at(2)), None);
    assert_eq!(holder.why_none(Some(&ada), at(2)), NoPlace::UserFull, "others hold both");
    assert_eq!(holder.due(), Some(at(ASK_AGAIN_MS)), "who waits in vain does not hurry control");
    // Another user, of whom nothing is known yet, and nobody.
    let bob = UserId::new("bob").unwrap();
    holder.wait(Some(&bob));
    assert_eq!(holder.why_none(Some(&bob), at(3)), NoPlace::NotLent);
    let ask = holder.ask(at(200));
    holder.answer(&answer_of_user(&ask, 0, Some((&bob, 1))), at(201));
    assert_eq!(
        (holder.admit(Some(&bob), at(201)), holder.why_none(Some(&bob), at(201))),
        (None, NoPlace::ClusterFull)
    );
    // What was said is good as long as the lease.
    assert_eq!(holder.why_none(Some(&ada), at(200 + LEASE)), NoPlace::NotLent);
    let ask = holder.ask(at(201 + LEASE));
    holder.answer(&answer_of_user(&ask, 3, None), at(202 + LEASE));
    assert_eq!(
        holder.why_none(Some(&ada), at(203 + LEASE)),
        NoPlace::NotLent,
        "it said nothing about the user"
    );
}

#[test]
fn a_limit_that_goes_and_comes_again_begins_with_nothing_said() {
    let (mut holder, ada) = holder_of_users();
    holder.wait(Some(&ada));
    let ask = holder.ask(at(0));
    holder.answer(&answer_of_user(&ask, 0, Some((&ada, 0))), at(1));
    assert_eq!(holder.why_none(Some(&ada), at(1)), NoPlace::UserFull);
    holder.view(revision(3), &limits(0, 0), at(2));
    holder.view(revision(4), &limits(3, 2), at(3));
    assert_eq!(holder.why_none(Some(&ada), at(3)), NoPlace::NotLent);
}

#[test]
fn what_a_user_leaves_is_given_back_before_a_handshake_elsewhere_has_waited_in_vain() {
    let (mut holder, ada) = holder_of_users();
    holder.lease_ms = LEASE * 10;
    (0..2).for_each(|_| holder.wait(Some(&ada)));
    let ask = holder.ask(at(0));
    let mut granted = answer_of_user(&ask, 2, Some((&ada, 2)));
    granted.grant.lease_ms = LEASE * 10;
    holder.answer(&granted, at(1));
    let eras = [0, 1].map(|_| holder.admit(Some(&ada), at(1)).unwrap());
    (0..2).for_each(|_| holder.wait_no_more(Some(&ada)));
    assert_eq!(holder.due(), Some(at(LEASE * 10 / 3)), "it has what it uses");
    holder.leave(Some(&ada), eras[0], false);
    assert_eq!(holder.due(), Some(at(GIVE_BACK_USER_MS)));
    let ask = holder.ask(at(200));
    assert_eq!(ask.users[&ada], Wanted { keep: 1, want: 1 });
    holder.answer(
        &LeaseAnswer {
            grant: LeaseGrant { lease_ms: LEASE * 10, ..answer_of_user(&ask, 1, Some((&ada, 1))).grant },
            revision: revision(3),
        },
        at(201),
    );
    assert_eq!(holder.due(), Some(at(200 + LEASE * 10 / 3)), "and is asked for once");
    assert_eq!((holder.users_spare, holder.users_short), (0, 0));
    holder.leave(Some(&ada), eras[1], false);
    assert_eq!(holder.users_spare, 1);
    let ask = holder.ask(at(400));
    holder.answer(&answer_of_user(&ask, 1, Some((&ada, 0))), at(401));
    assert_eq!((holder.users_spare, holder.users.len()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_is_more_in_use_than_the_limit(
        steps in prop::collection::vec((0_u8..30, 0_usize..3, 0_usize..8, 0_u64..30), 1..250),
    ) {
        let mut world = World::new();
        for step in steps {
            let before = world.held();
            world.step(step);
            let (held, limit, used) = (world.held(), world.limit(), world.used());
            for thing in 0..held.len() {
                let most = limit[thing].max(before[thing]);
                prop_assert!(held[thing] <= most, "{step:?} {thing}: {held:?} held, {before:?} before, {limit:?}");
                prop_assert!(used[thing] <= held[thing], "{step:?} {thing}: {used:?} used, {held:?} held");
            }
        }
    }

    #[test]
    fn once_everybody_is_heard_the_limit_is_reached_and_kept(
        limits in prop::collection::vec(0_u64..40, 1..4),
        wanted in prop::collection::vec(0_u64..40, 3),
    ) {
        let mut world = World::new();
        for limit in limits {
            world.settle(limit, &wanted);
            let all = wanted.iter().sum::<u64>();
            let expected = if limit == 0 { all } else { limit.min(all) };
            prop_assert_eq!(world.used()[0], expected, "limit {}, wanted {:?}", limit, wanted);
        }
    }
}
