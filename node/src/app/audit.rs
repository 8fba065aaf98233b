//! The books of this node's shards: what metrics show of them, and what an audit hears.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::IntCounter;

use super::App;
use crate::cluster::{NodeBooks, SubscriptionBooks};
use crate::hub::{Account, Audit, Books, Dropped};
use crate::telemetry::metrics::Metrics;

/// How long a scrape waits for shards that are busy: it stays well within 100 ms. The books of one that does
/// not answer in time are those of the last time, which counters may show.
const SCRAPE_WITHIN: Duration = Duration::from_millis(50);

/// How long an audit waits: less than other nodes wait for its answer.
const AUDIT_WITHIN: Duration = Duration::from_millis(400);

impl App {
    /// Brings the metrics up to date and reads them in one turn: what another scrape adds meanwhile is in none or
    /// in all of them.
    pub(crate) async fn scrape<T>(&self, read: impl FnOnce(&Metrics) -> T) -> T {
        self.hub.audit(SCRAPE_WITHIN).await;
        let _turn = self.counted.lock();
        // Not the books that were just heard: another scrape may have heard later ones, and had its turn first.
        self.show_books(&self.hub.books());
        self.refresh_gauges();
        read(&self.metrics)
    }

    fn show_books(&self, books: &Books) {
        let metrics = &self.metrics;
        for (sub, name) in self.publisher.catalog().interned().iter() {
            let (account, name) = (books.account(sub), [name.as_str()]);
            up_to(&metrics.recipients.with_label_values(&name), account.recipients);
            up_to(&metrics.caught_up.with_label_values(&name), account.caught_up);
            up_to(&metrics.delivered.with_label_values(&name), account.delivered);
            up_to(&metrics.coalesced.with_label_values(&name), account.coalesced);
            for reason in Dropped::ALL {
                let labels = [name[0], reason.as_str()];
                up_to(&metrics.dropped.with_label_values(&labels), account.dropped(reason));
            }
            let pending = i64::try_from(account.pending).unwrap_or(i64::MAX);
            metrics.pending.with_label_values(&name).set(pending);
        }
    }

    /// The books of this node as they are now.
    pub(crate) async fn books(&self) -> NodeBooks {
        let Audit { books, unanswered } = self.hub.audit(AUDIT_WITHIN).await;
        let catalog = self.publisher.catalog();
        let interned = catalog.interned().iter();
        let subscriptions = interned.map(|(sub, name)| (name.clone(), entry(books.account(sub))));
        NodeBooks { complete: unanswered == 0, subscriptions: subscriptions.collect() }
    }
}

/// Brings a counter to what it is where it is kept. Only in one's turn: two at once would add the same twice.
pub(super) fn up_to(counter: &IntCounter, now: u64) {
    counter.inc_by(now.saturating_sub(counter.get()));
}

fn entry(account: &Account) -> SubscriptionBooks {
    let dropped = Dropped::ALL.map(|reason| (reason.as_str().to_owned(), account.dropped(reason)));
    SubscriptionBooks {
        recipients: account.recipients,
        caught_up: account.caught_up,
        delivered: account.delivered,
        coalesced: account.coalesced,
        dropped: BTreeMap::from(dropped),
        pending: account.pending,
        residual: account.residual(),
    }
}
