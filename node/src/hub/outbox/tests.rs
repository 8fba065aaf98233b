//! The rules of the outbox, one by one. How they play together is tested with [`crate::hub::pending`].

use super::*;
use crate::hub::testing::Source;

const ROOM: Room = Room { frames: 8, bytes: 1_000_000 };
const NOW: Moment = Moment::from_millis(0);

/// What the peer gets of an outbox.
#[derive(Debug, PartialEq, Eq)]
enum Out {
    Seq(u64),
    Omitted(u64, u64),
    Control(Bytes),
    /// A frame without a place.
    Other,
}

struct Bench {
    source: Source,
    outbox: Outbox,
}

impl Bench {
    fn new() -> Self {
        Self { source: Source::new("tasks"), outbox: Outbox::default() }
    }

    fn update(&mut self, seq: u64, key: &str) -> Pushed {
        self.outbox.push(self.source.update(seq, key, 0).live().clone(), ROOM, NOW)
    }

    fn event(&mut self, seq: u64) -> Pushed {
        self.outbox.push(self.source.event(seq, 0).live().clone(), ROOM, NOW)
    }

    /// Settles the front and lets `bytes` of it leave.
    fn write(&mut self, bytes: usize) -> Vec<Out> {
        let source = &self.source;
        let mut notices = Vec::new();
        self.outbox.prepare(|omission| {
            assert_eq!(omission.sub, source.sub);
            notices.push((omission.from_seq, omission.to_seq));
            notice(source, &omission)
        });
        let due: usize = self.outbox.slices().iter().map(|slice| slice.len()).sum();
        let mut out = Vec::new();
        self.outbox.advance(bytes.min(due), |item, _| out.push(shown(item)));
        self.outbox.assert_consistent();
        out
    }

    fn drain(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        while !self.outbox.is_empty() {
            out.extend(self.write(usize::MAX));
        }
        out
    }
}

/// A notice that says in its correlation id what it stands for.
fn notice(source: &Source, omission: &Omission) -> SealedFrame {
    let frame = hiveops_proto::frame::Coalesced {
        correlation_id: hiveops_proto::CorrelationId::new(&format!(
            "omitted-{}-{}",
            omission.from_seq, omission.to_seq
        ))
        .unwrap(),
        timestamp: hiveops_proto::Timestamp::from_millis(0),
        subscription: source.name.clone(),
        epoch: source.view().position().epoch,
        from_seq: omission.from_seq,
        to_seq: omission.to_seq,
        count: omission.to_seq - omission.from_seq + 1,
    };
    SealedFrame::seal_of(source.sub, &frame.into())
}

fn shown(item: &Item) -> Out {
    let frame = match item {
        Item::Control(bytes) => return Out::Control(bytes.clone()),
        Item::Frame(frame) => frame,
    };
    if let Some(place) = frame.place() {
        return Out::Seq(place.seq);
    }
    let mut parts = frame.correlation_id().as_str().split('-');
    match (parts.next(), parts.next().map(str::parse), parts.next().map(str::parse)) {
        (Some("omitted"), Some(Ok(from)), Some(Ok(to))) => Out::Omitted(from, to),
        _ => Out::Other,
    }
}

#[test]
fn the_latest_value_of_a_key_takes_the_place_of_an_older_one_at_the_tail() {
    let mut bench = Bench::new();
    assert_eq!(bench.update(1, "a"), Pushed::Queued);
    assert_eq!(bench.update(2, "b"), Pushed::Queued);
    assert_eq!(bench.update(3, "a"), Pushed::Coalesced);
    assert_eq!(bench.drain(), [Out::Omitted(1, 1), Out::Seq(2), Out::Seq(3)]);
}

#[test]
fn events_are_never_coalesced() {
    let mut bench = Bench::new();
    assert_eq!([bench.event(1), bench.event(2), bench.event(3)], [Pushed::Queued; 3]);
    assert_eq!(bench.drain(), [Out::Seq(1), Out::Seq(2), Out::Seq(3)]);
}

#[test]
fn one_notice_tells_of_all_that_was_left_out_in_a_row() {
    let mut bench = Bench::new();
    for seq in 1..=5 {
        bench.update(seq, "a");
    }
    bench.event(6);
    bench.update(7, "a");
    assert_eq!(bench.drain(), [Out::Omitted(1, 5), Out::Seq(6), Out::Seq(7)]);
}

#[test]
fn what_has_begun_to_leave_is_not_replaced() {
    let mut bench = Bench::new();
    bench.update(1, "a");
    bench.update(2, "b");
    assert_eq!(bench.write(3), []);
    // Both are settled: the second could be in the same call to the socket.
    assert_eq!(bench.update(3, "a"), Pushed::Queued);
    assert_eq!(bench.update(4, "a"), Pushed::Coalesced);
    assert_eq!(bench.drain(), [Out::Seq(1), Out::Seq(2), Out::Omitted(3, 3), Out::Seq(4)]);
}

#[test]
fn a_full_outbox_still_takes_a_newer_value_but_nothing_else() {
    let mut bench = Bench::new();
    for seq in 1..=8 {
        assert_eq!(bench.update(seq, &seq.to_string()), Pushed::Queued);
    }
    assert_eq!(bench.event(9), Pushed::Full);
    assert_eq!(bench.update(9, "new"), Pushed::Full);
    assert_eq!(bench.update(9, "3"), Pushed::Coalesced);
    assert_eq!(bench.outbox.tail(bench.source.sub), Some(9));
}

#[test]
fn bytes_are_bounded_too_except_for_one_frame_that_is_alone() {
    let mut bench = Bench::new();
    let room = Room { frames: 8, bytes: 1_000 };
    let large = |seq| bench.source.update(seq, "a", 2_000).live().clone();
    assert_eq!(bench.outbox.push(large(1), room, NOW), Pushed::Queued);
    assert_eq!(bench.outbox.push(large(2), room, NOW), Pushed::Coalesced);
    assert_eq!(bench.outbox.push(bench.source.event(3, 0).live().clone(), room, NOW), Pushed::Full);
    assert_eq!(bench.drain(), [Out::Omitted(1, 1), Out::Seq(2)]);
}

#[test]
fn pings_overtake_what_has_not_begun_and_are_bounded() {
    let mut bench = Bench::new();
    let ping = Bytes::from_static(b"ping");
    bench.event(1);
    bench.event(2);
    assert_eq!(bench.write(1), []);
    let taken = (0..20).filter(|_| bench.outbox.push_control(ping.clone(), NOW)).count();
    assert_eq!(taken, CONTROLS_MAX);
    let out = bench.drain();
    assert_eq!((&out[0], out.last()), (&Out::Seq(1), Some(&Out::Seq(2))));
    assert_eq!(out.iter().filter(|out| **out == Out::Control(ping.clone())).count(), CONTROLS_MAX);
}

#[test]
fn leaving_takes_out_values_snapshots_and_notices_but_not_what_is_settled() {
    let mut bench = Bench::new();
    let other = Source::new("agents");
    bench.event(1);
    bench.update(2, "a");
    bench.update(3, "a");
    assert_eq!(bench.write(1), []);
    bench.update(4, "b");
    bench.outbox.push(other.event(9, 0).live().clone(), ROOM, NOW);
    let mut view = bench.source.view();
    let made = || hiveops_proto::CorrelationId::new("s").unwrap();
    let snapshot = view.snapshot(hiveops_proto::Timestamp::from_millis(0), made);
    bench.outbox.push_forced(snapshot[0].clone(), NOW);
    let omission = Omission { sub: bench.source.sub, from_seq: 1, to_seq: 2 };
    bench.outbox.push_forced(notice(&bench.source, &omission), NOW);
    bench.outbox.remove(bench.source.sub, |_| ());
    assert_eq!(bench.drain(), [Out::Seq(1), Out::Omitted(2, 2), Out::Seq(3), Out::Seq(9)]);
}

#[test]
fn who_comes_back_is_not_told_of_what_lay_before() {
    let mut bench = Bench::new();
    bench.event(1);
    assert_eq!(bench.write(1), []);
    bench.event(2);
    bench.outbox.remove(bench.source.sub, |_| ());
    bench.event(7);
    assert_eq!(bench.drain(), [Out::Seq(1), Out::Seq(7)]);
}

#[test]
fn a_replay_is_neither_announced_nor_replaced_and_live_frames_go_on_after_it() {
    let mut bench = Bench::new();
    let (old, new) = (bench.source.update(3, "a", 0), bench.source.update(6, "b", 0));
    bench.outbox.push_forced(old.replay().clone(), NOW);
    bench.outbox.push_forced(new.replay().clone(), NOW);
    bench.outbox.set_cursor(bench.source.sub, 6);
    assert_eq!(bench.update(7, "a"), Pushed::Queued);
    assert_eq!(bench.update(8, "a"), Pushed::Coalesced);
    assert_eq!(bench.drain(), [Out::Seq(3), Out::Seq(6), Out::Omitted(7, 7), Out::Seq(8)]);
}

#[test]
fn the_rest_of_a_cut_write_leaves_first() {
    let mut bench = Bench::new();
    let frame = bench.source.event(5, 0).live().clone();
    bench.outbox.push_forced(frame.clone(), NOW);
    bench.outbox.begin_front(7);
    bench.event(6);
    bench.outbox.prepare(|omission| panic!("{omission:?}"));
    let rest = bench.outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
    assert_eq!(rest[..frame.len() - 7], frame.bytes(Coding::Plain)[7..]);
    assert_eq!(bench.drain(), [Out::Seq(5), Out::Seq(6)]);
}

#[test]
fn clearing_keeps_what_has_begun_and_names_the_rest() {
    let mut bench = Bench::new();
    for seq in 1..=3 {
        bench.event(seq);
    }
    assert_eq!(bench.write(1), []);
    assert_eq!(bench.outbox.clear().len(), 2);
    bench.outbox.push_close(Bytes::from_static(b"close"), NOW);
    assert_eq!(bench.drain(), [Out::Seq(1), Out::Control(Bytes::from_static(b"close"))]);
}

#[test]
fn one_call_writes_a_bounded_number_of_frames() {
    let mut bench = Bench::new();
    let room = Room { frames: 1_000, bytes: 1_000_000 };
    for seq in 1..=200 {
        bench.outbox.push(bench.source.event(seq, 0).live().clone(), room, NOW);
    }
    assert_eq!(bench.write(usize::MAX).len(), WRITE_FRAMES_MAX);
    assert_eq!(bench.drain().len(), 200 - WRITE_FRAMES_MAX);
}

#[test]
fn a_frame_that_has_begun_says_nothing_of_where_a_session_stands_that_came_back() {
    let mut bench = Bench::new();
    bench.event(9);
    assert_eq!(bench.write(1), []);
    bench.outbox.remove(bench.source.sub, |_| ());
    // The log began a new life meanwhile: its numbers are small again.
    bench.outbox.set_cursor(bench.source.sub, 1);
    assert_eq!(bench.outbox.tail(bench.source.sub), Some(1));
    bench.event(2);
    assert_eq!(bench.outbox.tail(bench.source.sub), Some(2));
    assert_eq!(bench.drain(), [Out::Seq(9), Out::Seq(2)]);
}
