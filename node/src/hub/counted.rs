//! What `make instructions` counts of the hub, behind the feature `counted`. Nothing that is shipped has it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use hiveops_proto::{Contract, CorrelationId, Envelope, Epoch, Limits, Payload, Timestamp};

use super::frame::Publication;
use super::outbox::Room;
use super::pending::Pending;
use crate::bus::Stored;
use crate::catalog::{Catalog, SubMask};
use crate::time::Moment;
use crate::ws::Coding;

/// Sessions of a fan-out.
const OUTBOXES: usize = 1_000;
/// Bytes of a publication's data.
const DATA_BYTES: usize = 256;

const NOW: Moment = Moment::from_millis(0);

/// Events of one subscription.
struct Source {
    catalog: Arc<Catalog>,
    epoch: Epoch,
    data: Payload,
}

impl Source {
    fn new() -> Self {
        let contract = Contract::parse(hiveops_proto::CONTRACT).expect("the built-in contract is valid");
        let text = format!(r#"{{"pad":"{}"}}"#, "x".repeat(DATA_BYTES - r#"{"pad":""}"#.len()));
        Self {
            catalog: Catalog::compile(contract).expect("the built-in contract can be compiled"),
            epoch: Epoch::from_bits(1),
            data: Payload::parse(&text).expect("an object with one member is a payload"),
        }
    }

    fn stored(&self, seq: u64) -> Arc<Stored> {
        let sub = self.catalog.id("tasks").expect("the built-in contract declares it");
        let envelope = Envelope {
            subscription: self.catalog.name(sub).clone(),
            message_type: "task_event".parse().expect("a message type of the contract"),
            correlation_id: CorrelationId::new(&format!("{seq:036}")).expect("digits are a correlation id"),
            source_correlation_id: None,
            timestamp: Timestamp::from_millis(1_750_000_000_123),
            idempotency_key: None,
            traceparent: None,
            data: self.data.clone(),
        };
        Arc::new(Stored { sub, epoch: self.epoch.clone(), seq, key: None, removes: false, envelope })
    }
}

/// Seals one publication of 256 bytes, again and again.
pub(crate) fn seal(times: u64) {
    let source = Source::new();
    let received = Instant::now();
    let stored = source.stored(1);
    for _ in 0..times {
        black_box(Publication::seal(Arc::clone(&stored), received));
    }
}

/// Offers a publication to a thousand sessions whose sockets are full, and lets it leave again.
pub(crate) fn fan_out(times: u64) {
    let source = Source::new();
    let publication = Publication::seal(source.stored(1), Instant::now());
    let room = Room::of(&Limits::default());
    let mut live = SubMask::default();
    live.insert(publication.sub());
    let mut sessions: Vec<(SubMask, Pending)> =
        (0..OUTBOXES).map(|_| (live, Pending::new(Coding::default()))).collect();
    for _ in 0..times {
        for (live, pending) in &mut sessions {
            black_box(pending.offer(live, &publication, room, NOW));
        }
        for (_, pending) in &mut sessions {
            pending.outbox.prepare(|_| unreachable!("nothing is left out"));
            let bytes = pending.outbox.slices().iter().map(|slice| slice.len()).sum();
            pending.outbox.advance(bytes, |item, _| {
                black_box(item);
            });
        }
    }
    let left: usize = sessions.iter().map(|(_, pending)| pending.outbox.frames()).sum();
    assert_eq!(left, 0, "what is offered leaves");
}
