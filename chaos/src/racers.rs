//! Racers: sockets that join a subscription while it is published to, hear a little, leave, and join again.
//! They look at the wire itself and filter nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use hiveops_proto::frame::{ClientFrame, Publication, Snapshot, SnapshotItem, Subscribe, Unsubscribe};
use hiveops_proto::path::Endpoint;
use hiveops_proto::{CorrelationId, Epoch, Position, Positions, ServerFrame, SubscriptionName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::history::{CHANNELS, Heard, Place, Race};
use crate::load::{Ledger, key_of, life};
use crate::plan::Random;
use crate::watchers::{is_update, token};

/// For one frame. Something is published on every channel all the time.
const FRAME_PATIENCE: Duration = Duration::from_secs(20);

/// Live publications that a visit waits for at most.
const LIVE_MAX: u64 = 3;

/// What all racers share.
#[derive(Clone)]
pub(crate) struct Track {
    pub(crate) url: String,
    pub(crate) ledger: Arc<Ledger>,
    /// Races that have been begun, by all together.
    pub(crate) begun: Arc<AtomicU64>,
    /// How many there are to be.
    pub(crate) races: u64,
    pub(crate) seed: u64,
}

struct Racer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    ledger: Arc<Ledger>,
    random: Random,
    /// Where earlier visits of each channel began and ended.
    places: [Vec<(Epoch, Place)>; CHANNELS.len()],
}

/// One visit, as it goes on.
struct Visit {
    channel: usize,
    heard: Vec<Heard>,
    at: Option<Place>,
    epoch: Option<Epoch>,
    /// The replay goes as far as this.
    until: u64,
    items: Vec<SnapshotItem>,
    live: u64,
}

/// Runs until all races have been begun.
pub(crate) async fn race(number: u64, track: Track) -> Result<Vec<Race>> {
    let address = track.url.replace("http://", "ws://");
    let address = format!("{address}{}?subscriptions=", Endpoint::Dashboard.path());
    let (socket, _) = connect_async(address).await.context("a racer cannot connect")?;
    let random = Random::new(track.seed ^ number.wrapping_mul(0x9e37_79b9));
    let mut racer = Racer { socket, ledger: track.ledger, random, places: Default::default() };
    let mut races = Vec::new();
    loop {
        let number = track.begun.fetch_add(1, Ordering::SeqCst);
        if number >= track.races {
            return Ok(races);
        }
        races.push(racer.visit(usize::try_from(number)?).await?);
    }
}

impl Racer {
    async fn visit(&mut self, number: usize) -> Result<Race> {
        let channel = usize::try_from(self.random.within(0..CHANNELS.len() as u64))?;
        let subscription = SubscriptionName::new(CHANNELS[channel].subscription)?;
        let since = self.since(channel);
        let asked = since.as_ref().map(|(epoch, place)| Position { epoch: epoch.clone(), seq: place.seq });
        let positions: Positions = asked.into_iter().map(|at| (subscription.clone(), at)).collect();
        let joined = CorrelationId::new(&format!("join-{number}"))?;
        let acked = self.ledger.acked();
        let mut contested = None;
        self.send(ClientFrame::Subscribe(Subscribe {
            correlation_id: Some(joined.clone()),
            subscriptions: vec![subscription.to_string()],
            since: positions,
        }))
        .await?;
        let mut visit = Visit::new(channel, LIVE_MAX.min(1 + self.random.within(0..LIVE_MAX)));
        while !visit.is_over() {
            match self.next().await? {
                ServerFrame::SubscriptionUpdated(frame) if frame.correlation_id == joined => {
                    let recovered = frame.recovered.get(&subscription).copied();
                    let recovered = recovered.context("it was joined already")?;
                    ensure!(since.is_some() || !recovered, "it was continued without having been asked to");
                    if let Some((epoch, place)) = since.as_ref().filter(|_| recovered) {
                        let head = frame.positions.get(&subscription).map_or(0, |head| head.seq);
                        visit.begin(epoch.clone(), Heard::Since { place: *place }, *place, head);
                    }
                }
                frame => visit.take(frame)?,
            }
            if contested.is_none() && visit.is_answered() {
                contested = Some(self.ledger.acked() > acked);
            }
        }
        let contested = contested == Some(true);
        let left = CorrelationId::new(&format!("leave-{number}"))?;
        let subscriptions = vec![subscription.to_string()];
        let frame = Unsubscribe { correlation_id: Some(left.clone()), subscriptions };
        self.send(ClientFrame::Unsubscribe(frame)).await?;
        loop {
            match self.next().await? {
                ServerFrame::SubscriptionUpdated(frame) if frame.correlation_id == left => break,
                frame => visit.take(frame)?,
            }
        }
        if let (Some(epoch), Some(at)) = (visit.epoch, visit.at) {
            let places = &mut self.places[channel];
            places.push((epoch, at));
            // A replay has 300 frames at most; what lies further back becomes a snapshot, which also happens.
            if places.len() > 16 {
                places.remove(0);
            }
        }
        Ok(Race { number, channel, heard: visit.heard, contested })
    }

    /// Nothing, the last place, or an earlier one.
    fn since(&mut self, channel: usize) -> Option<(Epoch, Place)> {
        let choice = self.random.within(0..3);
        let places = &self.places[channel];
        match choice {
            0 => None,
            1 => places.last().cloned(),
            _ => {
                let index = self.random.draw().checked_rem(places.len() as u64)?;
                places.get(usize::try_from(index).ok()?).cloned()
            }
        }
    }

    async fn send(&mut self, frame: ClientFrame) -> Result<()> {
        let text = serde_json::to_string(&frame)?;
        Ok(self.socket.send(Message::text(text)).await?)
    }

    async fn next(&mut self) -> Result<ServerFrame> {
        loop {
            let message = timeout(FRAME_PATIENCE, self.socket.next()).await.context("nothing came")?;
            match message.context("the socket ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("the node closed: {frame:?}"),
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl Visit {
    fn new(channel: usize, live: u64) -> Self {
        Self { channel, heard: Vec::new(), at: None, epoch: None, until: 0, items: Vec::new(), live }
    }

    fn begin(&mut self, epoch: Epoch, heard: Heard, place: Place, until: u64) {
        self.heard.push(heard);
        self.at = Some(place);
        self.until = until;
        self.epoch = Some(epoch);
    }

    /// The snapshot is there, or the whole replay.
    fn is_answered(&self) -> bool {
        self.at.is_some_and(|at| at.seq >= self.until)
    }

    fn is_over(&self) -> bool {
        self.live == 0 && self.is_answered()
    }

    fn take(&mut self, frame: ServerFrame) -> Result<()> {
        let name = CHANNELS[self.channel].subscription;
        match frame {
            ServerFrame::Publication(frame) => {
                ensure!(frame.subscription.as_str() == name, "{} was not joined", frame.subscription);
                self.publication(&frame);
            }
            ServerFrame::Snapshot(frame) => {
                ensure!(frame.subscription.as_str() == name, "{} was not joined", frame.subscription);
                self.snapshot(frame);
            }
            ServerFrame::Coalesced(frame) => {
                ensure!(frame.subscription.as_str() == name, "{} was not joined", frame.subscription);
                self.heard.push(Heard::Omitted { from: frame.from_seq, to: frame.to_seq });
                if let Some(at) = &mut self.at {
                    at.seq = frame.to_seq.max(at.seq);
                }
            }
            ServerFrame::ErrorFrame(frame) => bail!("the node said {:?}: {}", frame.code, frame.message),
            ServerFrame::DisconnectNotice(frame) => bail!("the node said {:?}", frame.reason),
            _ => {}
        }
        Ok(())
    }

    fn publication(&mut self, frame: &Publication) {
        let place = Place { life: life(frame.epoch.as_str()), seq: frame.seq };
        if let Some(at) = self.at.filter(|at| frame.replayed && frame.prev_seq > at.seq) {
            // A replay leaves out what was overwritten meanwhile.
            self.heard.push(Heard::Omitted { from: at.seq + 1, to: frame.prev_seq });
        }
        let token = token(frame.data.as_str());
        self.heard.push(Heard::Delivered { place, prev_seq: frame.prev_seq, token });
        self.at = self.at.map(|_| place);
        self.live = self.live.saturating_sub(u64::from(!frame.replayed));
    }

    fn snapshot(&mut self, frame: Snapshot) {
        self.items.extend(frame.items);
        if frame.part < frame.parts {
            return;
        }
        let items = std::mem::take(&mut self.items);
        let values = items.iter().filter(|item| is_update(item.message_type.as_str()));
        let values =
            values.filter_map(|item| Some((key_of(item.key.as_str())?, item.seq, token(item.data.as_str()))));
        let place = Place { life: life(frame.epoch.as_str()), seq: frame.seq };
        let heard = Heard::Snapshot { place, values: values.collect() };
        self.begin(frame.epoch, heard, place, 0);
    }
}
