//! The client: one socket, no task, driven by [`Client::next`]. It carries out what the pure modules
//! decide and decides nothing itself.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use hiveops_proto::frame::Ping;
use hiveops_proto::{ClientFrame, CorrelationId, Position, Positions, ServerFrame};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use crate::continuity::{Continuity, Effect, State};
use crate::event::Event;
use crate::link::{self, ConnectError};
use crate::options::{InvalidOptions, Options};
use crate::reconnect::{Ended, Next, Policy, Stop};
use crate::session::{Heard, Session};
use crate::tls::Trust;

/// Messages that may wait for the socket: more than a node's burst would be dropped there anyway.
const OUTGOING_MAX: usize = 64;

/// The client's own pings carry this, so that their pongs are not the caller's.
const KEEPALIVE: &str = "keepalive";

/// Characters of an unknown `type` that are repeated to the caller at most.
const TYPE_SHOWN_MAX: usize = 64;

/// A client of one node, or of whatever stands at that address, that outlives its connections.
pub struct Client {
    options: Options,
    /// None for a node without TLS.
    trust: Option<Trust>,
    /// What to join; `None` for the defaults of the route.
    wanted: Option<BTreeSet<String>>,
    continuity: Continuity,
    policy: Policy,
    link: Link,
    /// Empty whenever the socket is read, so it holds the events of one message at most.
    events: VecDeque<Event>,
    outgoing: VecDeque<Message>,
    stopped: Option<Stop>,
    counts: Counts,
}

enum Link {
    /// To be made now.
    Due,
    /// To be made later.
    Waiting(Instant),
    Up(Box<Session>),
    /// Not to be made again by itself.
    Down,
}

/// What a client has seen since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that began.
    pub connected: u64,
    /// Publications delivered.
    pub delivered: u64,
    /// Frames ignored because they told nothing new.
    pub duplicates: u64,
    /// Frames not delivered because their subscription was being mended; what they tell comes again.
    pub withheld: u64,
    /// Publications known to have been left out for later values.
    pub omitted: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Snapshots applied.
    pub snapshots: u64,
    /// Messages that could not be read.
    pub unknown: u64,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection at the moment; messages are not kept for the next one.
    #[error("not connected")]
    NotConnected,
    /// The node does not read fast enough.
    #[error("{OUTGOING_MAX} messages wait to be sent already")]
    Full,
    /// The frame cannot be written as JSON.
    #[error("the frame cannot be written")]
    Encode(#[source] serde_json::Error),
}

impl Client {
    /// A client that connects when [`Client::next`] is called first, and tries again by its policy when
    /// that fails.
    pub fn new(options: Options) -> Result<Self, InvalidOptions> {
        options.request(None, &options.since)?;
        let trust = options.trust()?;
        let names: BTreeSet<String> = options.subscriptions.iter().cloned().collect();
        Ok(Self {
            wanted: (!names.is_empty()).then_some(names),
            continuity: Continuity::new(options.since.clone()),
            options,
            trust,
            policy: Policy::default(),
            link: Link::Due,
            events: VecDeque::new(),
            outgoing: VecDeque::new(),
            stopped: None,
            counts: Counts::default(),
        })
    }

    /// A client that is connected; an error when the first attempt fails, whatever `options.reconnect`
    /// says.
    pub async fn connect(options: Options) -> Result<Self, ConnectError> {
        let mut client = Self::new(options)?;
        client.dial().await?;
        Ok(client)
    }

    /// The next event; `None` once the client has ended, see [`Client::stopped`]. Everything the client
    /// does, it does in here: a client that is not asked for events answers no pings either.
    ///
    /// Cancel-safe: an event is lost only when it was returned.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match &mut self.link {
                Link::Down => return None,
                Link::Waiting(until) => {
                    sleep_until(*until).await;
                    self.link = Link::Due;
                }
                Link::Due => {
                    if let Err(error) = self.dial().await {
                        self.on_refusal(&error);
                    }
                }
                Link::Up(session) => {
                    let heard = session.turn(&mut self.outgoing).await;
                    self.on_heard(heard);
                }
            }
        }
    }

    /// Takes a message for the node; the next call of [`Client::next`] sends it. What is joined or left
    /// this way stays so after a reconnect.
    pub fn send(&mut self, frame: &ClientFrame) -> Result<(), SendError> {
        if !matches!(self.link, Link::Up(_)) {
            return Err(SendError::NotConnected);
        }
        self.enqueue(frame)?;
        let joined = self.continuity.names().map(ToString::to_string);
        match frame {
            ClientFrame::Subscribe(frame) => {
                let wanted = self.wanted.get_or_insert_with(|| joined.collect());
                wanted.extend(frame.subscriptions.iter().cloned());
            }
            ClientFrame::Unsubscribe(frame) => {
                let wanted = self.wanted.get_or_insert_with(|| joined.collect());
                wanted.retain(|name| !frame.subscriptions.contains(name));
            }
            ClientFrame::Ping(_) | ClientFrame::RequestData(_) | ClientFrame::AuthRefresh(_) => {}
        }
        Ok(())
    }

    /// Closes the connection properly; after the events that are still there, [`Client::next`] returns
    /// `None`.
    pub async fn close(&mut self) {
        self.stopped.get_or_insert(Stop::Normal);
        if let Link::Up(session) = std::mem::replace(&mut self.link, Link::Down) {
            session.close().await;
        }
    }

    /// The latest value of every key of a subscription, as far as the node has told.
    pub fn state(&self, subscription: &str) -> Option<&State> {
        self.continuity.state(subscription)
    }

    /// Where the client stands in each subscription: the `since` of a later client.
    pub fn positions(&self) -> Positions {
        self.continuity.positions()
    }

    /// Why the client ended, once it has.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// A new credential for the connections to come. A client that stopped for the lack of a valid one
    /// goes on: call [`Client::next`] again.
    pub fn set_token(&mut self, token: Option<String>) {
        self.options.token = token;
        if self.stopped == Some(Stop::Credential) {
            self.stopped = None;
            self.link = Link::Due;
        }
    }

    /// What the client has seen.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Cancel-safe: until there is a connection, nothing has changed but what `begin` forgets.
    async fn dial(&mut self) -> Result<(), ConnectError> {
        let since = self.continuity.begin();
        let names: Option<Vec<String>> = self.wanted.as_ref().map(|names| names.iter().cloned().collect());
        let request = self.options.request(names.as_deref(), &since)?;
        let socket = link::connect(request, self.trust.as_ref(), self.options.connect_timeout).await?;
        self.outgoing.clear();
        self.link = Link::Up(Box::new(Session::new(socket)));
        Ok(())
    }

    fn on_refusal(&mut self, error: &ConnectError) {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.end(error.ended(), None, reason, Duration::ZERO);
    }

    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Text(text) => match serde_json::from_str(&text) {
                Ok(frame) => self.on_frame(frame),
                Err(error) => self.on_unknown(type_of(&text), error.to_string()),
            },
            Heard::Binary => self.on_unknown(None, "a binary message".to_owned()),
            Heard::Closed { code, reason } => {
                let ended = code.map_or(Ended::Lost, Ended::Closed);
                self.end(Some(ended), code, reason, self.lived());
            }
            Heard::Lost(reason) => self.end(Some(Ended::Lost), None, reason, self.lived()),
            Heard::PingDue => self.ask(&keepalive()),
            Heard::AnswerDue => {
                let effects = self.continuity.overdue();
                self.carry_out(effects, &mut None);
            }
        }
    }

    fn on_frame(&mut self, frame: ServerFrame) {
        if let ServerFrame::ConnectionEstablished(frame) = frame {
            if let Link::Up(session) = &mut self.link {
                session.on_limits(&frame.limits);
            }
            self.counts.connected += 1;
            return self.events.push_back(Event::Connected { frame: Box::new(frame) });
        }
        if let ServerFrame::DisconnectNotice(notice) = &frame {
            self.policy.on_notice(notice.retry_after_ms.map(Duration::from_millis));
        }
        let effects = self.continuity.handle(&frame);
        self.carry_out(effects, &mut Some(frame));
    }

    /// Turns effects into events and messages. `frame` is the one that they are about.
    fn carry_out(&mut self, effects: Vec<Effect>, frame: &mut Option<ServerFrame>) {
        for effect in effects {
            match effect {
                Effect::Deliver => self.deliver(frame.take()),
                Effect::Duplicate { .. } | Effect::Stray { .. } => self.counts.duplicates += 1,
                Effect::Withheld { .. } => self.counts.withheld += 1,
                Effect::Omitted { subscription, from, to } => {
                    self.counts.omitted = self.counts.omitted.saturating_add(to - from + 1);
                    self.events.push_back(Event::Omitted { subscription, from, to });
                }
                Effect::Gap { subscription, from, to } => {
                    self.counts.gaps += 1;
                    self.events.push_back(Event::Gap { subscription, from, to });
                }
                Effect::Resubscribe { since } => self.ask(&Effect::subscribe(since)),
                Effect::Snapshot { subscription, epoch, seq, items } => {
                    self.counts.snapshots += 1;
                    let position = Position { epoch, seq };
                    self.events.push_back(Event::Snapshot { subscription, position, items });
                }
                Effect::EpochChanged { subscription, from, to } => {
                    self.events.push_back(Event::EpochChanged { subscription, from, to });
                }
                // The `subscription_updated` that led to it is delivered and says the same.
                Effect::SnapshotPart { .. } | Effect::Left { .. } => {}
            }
        }
        if let Link::Up(session) = &mut self.link {
            session.on_progress(self.continuity.is_pending(), self.continuity.progress());
        }
    }

    fn deliver(&mut self, frame: Option<ServerFrame>) {
        let Some(frame) = frame else { return };
        let is_own = matches!(&frame, ServerFrame::Pong(pong) if pong.correlation_id.as_str() == KEEPALIVE);
        self.counts.delivered += u64::from(matches!(frame, ServerFrame::Publication(_)));
        if !is_own {
            self.events.push_back(Event::Frame(frame));
        }
    }

    fn on_unknown(&mut self, frame_type: Option<String>, error: String) {
        self.counts.unknown += 1;
        self.events.push_back(Event::Unknown { frame_type, error });
    }

    fn end(&mut self, ended: Option<Ended>, code: Option<u16>, reason: String, lived: Duration) {
        let next = match ended {
            Some(ended) => self.policy.next(&ended, lived, random()),
            None => Next::Stop(Stop::Options),
        };
        let retry_in = match next {
            Next::Wait(wait) if self.options.reconnect => Some(wait),
            Next::Wait(_) => {
                self.stopped = Some(Stop::Options);
                None
            }
            Next::Stop(stop) => {
                self.stopped = Some(stop);
                None
            }
        };
        self.link = retry_in.map_or(Link::Down, |wait| Link::Waiting(Instant::now() + wait));
        self.events.push_back(Event::Disconnected { code, reason, retry_in });
    }

    fn lived(&self) -> Duration {
        match &self.link {
            Link::Up(session) => session.lived(),
            Link::Due | Link::Waiting(_) | Link::Down => Duration::ZERO,
        }
    }

    /// Sends a message of the client's own. When the queue is full it is not sent: a question about a
    /// subscription is asked again when no answer comes, and a full queue needs no ping.
    fn ask(&mut self, frame: &ClientFrame) {
        let _ = self.enqueue(frame);
    }

    fn enqueue(&mut self, frame: &ClientFrame) -> Result<(), SendError> {
        if self.outgoing.len() >= OUTGOING_MAX {
            return Err(SendError::Full);
        }
        let text = serde_json::to_string(frame).map_err(SendError::Encode)?;
        self.outgoing.push_back(Message::text(text));
        Ok(())
    }
}

fn keepalive() -> ClientFrame {
    ClientFrame::Ping(Ping { correlation_id: CorrelationId::new(KEEPALIVE).ok() })
}

/// The `type` of a message that is no frame we know.
fn type_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        frame_type: String,
    }
    let head: Head = serde_json::from_str(text).ok()?;
    Some(head.frame_type.chars().take(TYPE_SHOWN_MAX).collect())
}

/// Uniform in 0..1, good enough to spread clients: the standard library seeds its hasher per process.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
