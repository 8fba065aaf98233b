//! Sealing: a frame is stamped and encoded here, once, and only what was sealed reaches a socket.
//!
//! Every session that a publication goes to shares its bytes. A sealed frame remembers what the outbox
//! and the log lines need: its type, its correlation id, its place in a log.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use hiveops_proto::frame::Publication as Frame;
use hiveops_proto::{CorrelationId, MessageType, ServerFrame, Timestamp};

use crate::bus::Stored;
use crate::catalog::SubId;
use crate::log::{Entry, ValueKey};
use crate::telemetry::exemplar::{Subject, sampled_trace_id};
use crate::trace::{Lost, Tally};
use crate::ws::deflate::deflated;
use crate::ws::{self, Coding};

/// An encoded WebSocket frame, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SealedFrame(Arc<Sealed>);

#[derive(Debug)]
struct Sealed {
    bytes: Bytes,
    /// Its compressed forms, each made when the first session asks for it; none where it stays plain.
    deflated: [OnceLock<Option<Bytes>>; Coding::DEFLATED],
    frame_type: MessageType,
    correlation_id: CorrelationId,
    sub: Option<SubId>,
    place: Option<Place>,
    /// Where its deliveries are counted; none for what is no publication, or was read with a whole log.
    tally: Option<Arc<Tally>>,
    /// When it was published, and its trace; none for what is no publication.
    origin: Option<Origin>,
}

/// Where a publication comes from, as far as its latency needs it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    published: Timestamp,
    /// Of a sampled trace.
    trace_id: Option<String>,
}

/// Where a publication stands in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sub: SubId,
    pub(crate) seq: u64,
    pub(crate) prev_seq: u64,
    /// The value it is the whole of; a later one of the same key may take its place.
    pub(crate) key: Option<ValueKey>,
    pub(crate) replayed: bool,
}

impl SealedFrame {
    /// Seals a frame that belongs to no subscription.
    pub(crate) fn seal(frame: &ServerFrame) -> Self {
        Self::make(frame, (None, None), (None, None))
    }

    /// Seals a snapshot or a notice of one subscription: who leaves it needs it no more.
    pub(crate) fn seal_of(sub: SubId, frame: &ServerFrame) -> Self {
        Self::make(frame, (Some(sub), None), (None, None))
    }

    fn make(
        frame: &ServerFrame,
        (sub, place): (Option<SubId>, Option<Place>),
        (tally, origin): (Option<Arc<Tally>>, Option<Origin>),
    ) -> Self {
        let text = serde_json::to_vec(frame).expect("frames consist of checked values, which are all JSON");
        let frame_type = MessageType::new(frame.frame_type())
            .expect("the types of frames follow the rule of message types");
        let correlation_id = frame.correlation_id().clone();
        let (bytes, deflated) = (ws::text_frame(&text), Default::default());
        Self(Arc::new(Sealed { bytes, deflated, frame_type, correlation_id, sub, place, tally, origin }))
    }

    /// The form that a session gets. What is for one session only stays plain.
    pub(crate) fn bytes(&self, coding: Coding) -> &Bytes {
        match coding.index().filter(|_| self.0.sub.is_some()) {
            None => &self.0.bytes,
            Some(index) => {
                let deflated = self.0.deflated[index].get_or_init(|| deflated(&self.0.bytes, coding));
                deflated.as_ref().unwrap_or(&self.0.bytes)
            }
        }
    }

    /// The length of the plain form, which bounds that of the others.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }

    pub(crate) fn frame_type(&self) -> &str {
        self.0.frame_type.as_str()
    }

    pub(crate) fn correlation_id(&self) -> &CorrelationId {
        &self.0.correlation_id
    }

    pub(crate) fn sub(&self) -> Option<SubId> {
        self.0.sub
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// A session's socket has taken all of it, out of its outbox.
    pub(crate) fn left(&self, at: Instant) {
        let (Some(tally), Some(place)) = (&self.0.tally, &self.0.place) else { return };
        if place.replayed { tally.replayed() } else { tally.delivered(1, at) }
    }

    /// A later value took its place in an outbox.
    pub(crate) fn coalesced(&self) {
        if let Some(tally) = self.owed() {
            tally.coalesced();
        }
    }

    /// It was thrown away.
    pub(crate) fn lost(&self, why: Lost) {
        if let Some(tally) = self.owed() {
            tally.lost(why);
        }
    }

    /// Where it counts that it does not reach a session; one that is only replayed was due to none.
    fn owed(&self) -> Option<&Tally> {
        let is_live = self.0.place.as_ref().is_some_and(|place| !place.replayed);
        self.0.tally.as_deref().filter(|_| is_live)
    }

    /// When it was published; none for what is no publication.
    pub(crate) fn published(&self) -> Option<Timestamp> {
        self.0.origin.as_ref().map(|origin| origin.published)
    }

    /// Whether its trace is sampled.
    pub(crate) fn is_sampled(&self) -> bool {
        self.0.origin.as_ref().is_some_and(|origin| origin.trace_id.is_some())
    }

    /// What an observation of its latency is an example of.
    pub(crate) fn subject(&self) -> Subject {
        let trace_id = self.0.origin.as_ref().and_then(|origin| origin.trace_id.clone());
        Subject::new(self.0.correlation_id.clone(), trace_id)
    }
}

/// A publication as the shards hold it: its place in the log and its bytes.
#[derive(Debug)]
pub(crate) struct Publication {
    stored: Arc<Stored>,
    live: SealedFrame,
    /// Made when the first session asks for it again.
    replay: OnceLock<SealedFrame>,
    /// When this node got it from the bus.
    received: Instant,
    tally: Option<Arc<Tally>>,
}

impl Publication {
    /// One that was read with its log: nobody was there to be sent it.
    pub(crate) fn seal(stored: Arc<Stored>, received: Instant) -> Arc<Self> {
        Self::seal_with(stored, received, None)
    }

    /// One that has just come.
    pub(crate) fn seal_counted(stored: Arc<Stored>, received: Instant, tally: Arc<Tally>) -> Arc<Self> {
        Self::seal_with(stored, received, Some(tally))
    }

    fn seal_with(stored: Arc<Stored>, received: Instant, tally: Option<Arc<Tally>>) -> Arc<Self> {
        let live = seal(&stored, false, tally.clone());
        Arc::new(Self { stored, live, replay: OnceLock::new(), received, tally })
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(crate) fn sub(&self) -> SubId {
        self.stored.sub
    }

    pub(crate) fn live(&self) -> &SealedFrame {
        &self.live
    }

    /// The same frame, marked `replayed`.
    pub(crate) fn replay(&self) -> &SealedFrame {
        self.replay.get_or_init(|| seal(&self.stored, true, self.tally.clone()))
    }

    pub(crate) fn received(&self) -> Instant {
        self.received
    }

    pub(crate) fn tally(&self) -> Option<&Arc<Tally>> {
        self.tally.as_ref()
    }

    /// A shard has been through all sessions that it is due to, or has none any more.
    pub(super) fn walked(&self) {
        if let Some(tally) = self.tally() {
            tally.walked();
        }
    }
}

fn seal(stored: &Stored, replayed: bool, tally: Option<Arc<Tally>>) -> SealedFrame {
    let envelope = &stored.envelope;
    // `seq` grows by one within an epoch (CONTRACT section 5), so the one before is known.
    let prev_seq = stored.seq.saturating_sub(1);
    let frame = Frame {
        message_type: envelope.message_type.clone(),
        correlation_id: envelope.correlation_id.clone(),
        source_correlation_id: envelope.source_correlation_id.clone(),
        timestamp: envelope.timestamp,
        subscription: envelope.subscription.clone(),
        epoch: stored.epoch.clone(),
        seq: stored.seq,
        prev_seq,
        replayed,
        data: envelope.data.clone(),
    };
    let place = Place { sub: stored.sub, seq: stored.seq, prev_seq, key: stored.key.clone(), replayed };
    let trace_id = envelope.traceparent.as_deref().and_then(sampled_trace_id).map(str::to_owned);
    let origin = Origin { published: envelope.timestamp, trace_id };
    SealedFrame::make(&frame.into(), (Some(stored.sub), Some(place)), (tally, Some(origin)))
}

impl Entry for Arc<Publication> {
    fn seq(&self) -> u64 {
        self.stored.seq
    }
    fn key(&self) -> Option<&ValueKey> {
        self.stored.key.as_ref()
    }
    fn removes(&self) -> bool {
        self.stored.removes
    }
    fn published_at(&self) -> Timestamp {
        self.stored.envelope.timestamp
    }
    fn size(&self) -> usize {
        self.stored.envelope.data.as_str().len()
    }
}
