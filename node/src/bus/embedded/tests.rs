//! The embedded bus beyond what every bus must do: its queue, its thread, its files.

use super::*;
use crate::bus::conformance::{Fixture, names};

/// Distinct epochs.
pub(super) fn epochs() -> impl FnMut() -> Epoch {
    let mut next = 0;
    move || {
        next += 1;
        Epoch::from_bits(next)
    }
}

impl EmbeddedBus {
    /// Keeps the writer from doing anything until what this gives is dropped.
    pub(super) async fn hold(commands: mpsc::Sender<Command>) -> std::sync::mpsc::SyncSender<()> {
        let (release, released) = std::sync::mpsc::sync_channel(0);
        let (held, is_held) = oneshot::channel();
        assert!(commands.send(Command::Hold(held, released)).await.is_ok());
        is_held.await.unwrap();
        release
    }
}

fn fixture(mut bus: EmbeddedBus, deadline: Duration, keep: Box<dyn std::any::Any + Send + Sync>) -> Fixture {
    bus.deadline = deadline;
    let commands = bus.commands.clone();
    let stall = Box::new(move || {
        let commands = commands.clone();
        Box::pin(async move { Box::new(EmbeddedBus::hold(commands).await) as Box<dyn std::any::Any + Send> })
            as Call<'static, _>
    });
    Fixture { bus: Arc::new(bus), stall, _keep: keep }
}

pub(crate) fn memory(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let bus = EmbeddedBus::open(&names(), None, Clock::start(), epochs()).unwrap();
        fixture(bus, deadline, Box::new(()))
    })
}

pub(crate) fn disk(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&names(), Some(dir.path()), Clock::start(), epochs()).unwrap();
        fixture(bus, deadline, Box::new(dir))
    })
}
