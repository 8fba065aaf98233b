//! Watchers: reference clients behind the balancer. Each records what it was told, and how long it was away
//! whenever it lost its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_client::{Client, Event, Options};
use hiveops_proto::frame::Publication;
use hiveops_proto::{MessageKind, Positions, ServerFrame};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::number_of;
use crate::history::{Absence, CHANNELS, Heard, NO_TOKEN, Place, Token, Track, Watcher, channel_of};
use crate::load::{Ledger, key_of, life};

/// Not with any node, or not with everything that is there.
pub const AWAY: usize = usize::MAX;

/// How long a watcher may take to the end of what was acknowledged. A lost tail shows in a heartbeat after
/// 25 s of silence.
const END_PATIENCE: Duration = Duration::from_secs(40);

/// One place for each channel.
pub type Places = [Option<Place>; CHANNELS.len()];

/// Where a watcher stands, for the scenario to look at.
#[derive(Debug)]
pub struct Standing {
    /// The node that it is with, once it has everything; else [`AWAY`].
    node: AtomicUsize,
    /// Absences that are over.
    returns: AtomicU64,
    /// Connections that ended.
    losses: AtomicU64,
    /// How far it is in each channel.
    seqs: [AtomicU64; CHANNELS.len()],
}

impl Default for Standing {
    fn default() -> Self {
        let (returns, losses, seqs) = Default::default();
        Self { node: AtomicUsize::new(AWAY), returns, losses, seqs }
    }
}

impl Standing {
    pub fn node(&self) -> usize {
        self.node.load(Ordering::SeqCst)
    }

    pub fn returns(&self) -> u64 {
        self.returns.load(Ordering::SeqCst)
    }

    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Whether it is as far as this in every channel, whatever life that is.
    pub fn has_reached(&self, places: &Places) -> bool {
        let mut channels = self.seqs.iter().zip(places);
        channels.all(|(seq, place)| place.is_none_or(|place| seq.load(Ordering::SeqCst) >= place.seq))
    }
}

/// What all watchers of a run share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) began: Instant,
    /// True when no more is published: come to the end.
    pub(crate) ending: watch::Receiver<bool>,
}

/// Being away.
struct Away {
    since: Instant,
    /// What was acknowledged when it was noticed.
    goal: Places,
    waited: Duration,
    attempts: u32,
    from_node: usize,
    /// The session that is to end it.
    session: Option<Instant>,
}

struct Recorder {
    began: Instant,
    ledger: Arc<Ledger>,
    standing: Arc<Standing>,
    watcher: Watcher,
    at: Places,
    /// The node of this session.
    node: usize,
    /// What the node named as there when the session began; none before it did.
    begun: Option<Places>,
    away: Option<Away>,
}

/// Watches until everything that was acknowledged has come, after it is told that no more will.
pub(crate) async fn watch(number: usize, shared: Shared, standing: Arc<Standing>) -> Watcher {
    let Shared { url, ledger, began, mut ending } = shared;
    let mut options = Options::new(url);
    options.subscriptions = CHANNELS.map(|channel| channel.subscription.to_owned()).to_vec();
    let mut recorder = Recorder::new(number, began, ledger, standing);
    let mut client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => return recorder.fail(error.to_string()),
    };
    let mut deadline = None;
    loop {
        if deadline.is_some() && recorder.is_at_the_end() {
            return recorder.finish(&client);
        }
        // All are cancel-safe: `next` by its word, the others only wait.
        tokio::select! {
            event = client.next() => match event {
                Some(event) => recorder.take(event),
                None => return recorder.fail(format!("the client stopped: {:?}", client.stopped())),
            },
            _ = ending.wait_for(|ending| *ending), if deadline.is_none() => {
                deadline = Some(Instant::now() + END_PATIENCE);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return recorder.fail_behind();
            }
        }
    }
}

impl Recorder {
    fn new(number: usize, began: Instant, ledger: Arc<Ledger>, standing: Arc<Standing>) -> Self {
        let watcher =
            Watcher { number, tracks: vec![Track::default(); CHANNELS.len()], ..Watcher::default() };
        Self { began, ledger, standing, watcher, at: Places::default(), node: AWAY, begun: None, away: None }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Connected { frame } => {
                self.node = number_of(frame.node_id.as_str()).unwrap_or(AWAY);
                self.watcher.sessions.push(self.began.elapsed());
                if let Some(away) = &mut self.away {
                    away.session = Some(Instant::now());
                }
            }
            Event::Frame(ServerFrame::DashboardInitialized(frame)) => {
                self.begun = Some(places(&frame.positions));
            }
            Event::Frame(ServerFrame::Publication(frame)) => self.delivered(&frame),
            Event::Frame(_) => {}
            Event::Omitted { subscription, from, to } => {
                if let Some(channel) = channel_of(subscription.as_str()) {
                    self.hear(channel, Heard::Omitted { from, to });
                    if let Some(at) = &mut self.at[channel] {
                        at.seq = to;
                    }
                }
            }
            Event::Gap { subscription, from, to } => {
                if let Some(channel) = channel_of(subscription.as_str()) {
                    self.hear(channel, Heard::Gap { from, to });
                }
            }
            Event::Snapshot { subscription, position, items } => {
                let Some(channel) = channel_of(subscription.as_str()) else { return };
                let values = items.iter().filter(|item| is_update(item.message_type.as_str()));
                let values = values.filter_map(|item| {
                    Some((key_of(item.key.as_str())?, item.seq, token(item.data.as_str())))
                });
                let place = Place { life: life(position.epoch.as_str()), seq: position.seq };
                self.hear(channel, Heard::Snapshot { place, values: values.collect() });
                self.at[channel] = Some(place);
            }
            Event::EpochChanged { subscription, .. } => {
                if let Some(channel) = channel_of(subscription.as_str()) {
                    self.hear(channel, Heard::EpochChanged);
                }
            }
            Event::Unknown { .. } => self.watcher.unknown += 1,
            Event::Disconnected { retry_in, .. } => self.lost(retry_in),
        }
        for (seq, at) in self.standing.seqs.iter().zip(self.at) {
            seq.store(at.map_or(0, |at| at.seq), Ordering::SeqCst);
        }
        self.come_back();
    }

    fn delivered(&mut self, frame: &Publication) {
        let Some(channel) = channel_of(frame.subscription.as_str()) else { return };
        let place = Place { life: life(frame.epoch.as_str()), seq: frame.seq };
        let token = token(frame.data.as_str());
        self.hear(channel, Heard::Delivered { place, prev_seq: frame.prev_seq, token });
        self.at[channel] = Some(place);
    }

    fn hear(&mut self, channel: usize, heard: Heard) {
        self.watcher.tracks[channel].heard.push(heard);
    }

    /// The connection ended, or could not be made.
    fn lost(&mut self, retry_in: Option<Duration>) {
        // It does so exactly then.
        self.watcher.knocks.extend(retry_in.map(|wait| self.began.elapsed() + wait));
        if self.node != AWAY {
            self.standing.losses.fetch_add(1, Ordering::SeqCst);
        }
        self.standing.node.store(AWAY, Ordering::SeqCst);
        let away = self.away.get_or_insert_with(|| Away {
            since: Instant::now(),
            goal: self.ledger.heads(),
            waited: Duration::ZERO,
            attempts: 0,
            from_node: self.node,
            session: None,
        });
        away.attempts += 1;
        away.waited += retry_in.unwrap_or_default();
        away.session = None;
        self.node = AWAY;
        self.begun = None;
    }

    /// Notes the end of an absence when the session has begun and everything is there.
    fn come_back(&mut self) {
        let Some(begun) = &self.begun else { return };
        let Some(away) = &self.away else {
            // The first session.
            if covers(&self.at, begun) {
                self.standing.node.store(self.node, Ordering::SeqCst);
            }
            return;
        };
        if !covers(&self.at, begun) || !covers(&self.at, &away.goal) {
            return;
        }
        let now = Instant::now();
        // An absence that began before the first session is none.
        if away.from_node != AWAY {
            self.watcher.absences.push(Absence {
                began: away.since - self.began,
                took: now - away.since,
                waited: away.waited,
                caught_up_in: away.session.map_or(Duration::ZERO, |session| now - session),
                attempts: away.attempts,
                from_node: away.from_node,
                to_node: self.node,
            });
            self.standing.returns.fetch_add(1, Ordering::SeqCst);
        }
        self.away = None;
        self.standing.node.store(self.node, Ordering::SeqCst);
    }

    fn is_at_the_end(&self) -> bool {
        self.away.is_none() && self.begun.is_some() && covers(&self.at, &self.ledger.heads())
    }

    fn finish(mut self, client: &Client) -> Watcher {
        for (channel, track) in CHANNELS.iter().zip(&mut self.watcher.tracks) {
            let Some(state) = client.state(channel.subscription) else { continue };
            let values = state.iter().filter(|(message_type, ..)| is_update(message_type.as_str()));
            track.end = values
                .filter_map(|(_, key, item)| Some((key_of(key.as_str())?, token(item.data.as_str()))))
                .collect();
        }
        let counts = client.counts();
        self.watcher.filtered = counts.duplicates;
        self.watcher
    }

    fn fail_behind(self) -> Watcher {
        let heads = self.ledger.heads();
        let why = format!("at {:?}, and {heads:?} was acknowledged", self.at);
        self.fail(why)
    }

    fn fail(mut self, why: String) -> Watcher {
        self.watcher.failure = Some(why);
        self.watcher
    }
}

/// Whether somebody at these places has everything up to those. Another life is not for us to judge: the
/// check does.
fn covers(at: &Places, goal: &Places) -> bool {
    at.iter().zip(goal).all(|(at, goal)| match (at, goal) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(at), Some(goal)) => at.life != goal.life || at.seq >= goal.seq,
    })
}

fn places(positions: &Positions) -> Places {
    let mut places = Places::default();
    for (name, position) in positions {
        if let Some(channel) = channel_of(name.as_str()) {
            places[channel] = Some(Place { life: life(position.epoch.as_str()), seq: position.seq });
        }
    }
    places
}

pub(crate) fn is_update(message_type: &str) -> bool {
    MessageKind::of_type(message_type) == Some(MessageKind::Update)
}

/// The token in the data of a publication. Looked for as text: parsing would cost more than all the rest.
pub(crate) fn token(data: &str) -> Token {
    const MEMBER: &str = "\"token\":";
    let Some(start) = data.find(MEMBER) else { return NO_TOKEN };
    let rest = data[start + MEMBER.len()..].trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(NO_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Life;

    #[test]
    fn a_token_is_found_in_data_of_any_form() {
        assert_eq!(token(r#"{"id":"chaos-1","token":4294967297,"pad":"x"}"#), 4_294_967_297);
        assert_eq!(token(r#"{"token": 7}"#), 7);
        assert_eq!(token(r#"{"id":"t1"}"#), NO_TOKEN);
        assert_eq!(token(r#"{"token":"x"}"#), NO_TOKEN);
    }

    #[test]
    fn a_watcher_is_back_when_it_has_everything_in_every_channel() {
        let place = |life, seq| Some(Place { life: Life(life), seq });
        assert!(covers(&[place(1, 5), None], &[place(1, 5), None]));
        assert!(!covers(&[place(1, 4), place(1, 9)], &[place(1, 5), place(1, 9)]));
        assert!(!covers(&[place(1, 5), None], &[None, place(1, 1)]));
        assert!(covers(&[place(2, 1), None], &[place(1, 5), None]));
    }
}
