//! A shard's books, for who asks: closed between two fan-outs, so that every frame stands somewhere.

use tokio::sync::oneshot;

use super::{Command, Mailbox, Shard};
use crate::hub::Ended;
use crate::hub::books::Dropped;

impl Mailbox {
    /// Has the shard close and show its books; returns when it has.
    pub(crate) async fn audit(&self) -> Result<(), Ended> {
        let (reply, closed) = oneshot::channel();
        self.send(Command::Audit(reply)).await?;
        closed.await.map_err(|_| Ended)
    }
}

impl Shard {
    /// What waits is counted in the outboxes themselves.
    pub(super) fn show_books(&mut self) {
        let outboxes = self.connections.iter_mut().filter_map(|(_, connection)| connection.pending.as_mut());
        for pending in outboxes {
            pending.outbox.count_replaced(|sub| self.local.books.coalesced(sub));
        }
        let outboxes = self.connections.iter().filter_map(|(_, connection)| connection.pending.as_ref());
        let books = self.local.books.closed_with(outboxes.flat_map(|pending| pending.outbox.due()));
        self.gauges.show_books(books);
    }

    /// The shard ends: what still waits for those who have not gone never leaves.
    pub(super) fn close_books(&mut self) {
        for (_, connection) in &mut self.connections {
            if let Some(mut pending) = connection.pending.take() {
                pending.outbox.count_replaced(|sub| self.local.books.coalesced(sub));
                pending.outbox.due().for_each(|sub| self.local.books.dropped(sub, Dropped::Closed, 1));
                pending.abandon(&self.views);
            }
        }
        self.show_books();
    }

    #[cfg(test)]
    pub(super) fn lose_one(&mut self) -> bool {
        let mut outboxes = self.connections.iter_mut().filter_map(|(_, it)| it.pending.as_mut());
        outboxes.any(|pending| pending.outbox.lose_one())
    }
}
