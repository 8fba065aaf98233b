//! The books of this node's shards: what metrics show of them, and what an audit hears.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::IntCounter;

use super::App;
use crate::cluster::{NodeBooks, SubscriptionBooks};
use crate::hub::{Account, Audit, Dropped};

/// How long a scrape waits for shards that are busy: it stays well within 100 ms. The books of one that does
/// not answer in time are those of the last time, which counters may show.
const SCRAPE_WITHIN: Duration = Duration::from_millis(50);

/// How long an audit waits: less than other nodes wait for its answer.
const AUDIT_WITHIN: Duration = Duration::from_millis(400);

impl App {
    /// Brings the metrics of publications up to date.
    pub(crate) async fn refresh_books(&self) {
        let Audit { books, .. } = self.hub.audit(SCRAPE_WITHIN).await;
        let metrics = &self.metrics;
        let _turn = self.counted.lock();
        let up_to = |counter: &IntCounter, now: u64| counter.inc_by(now.saturating_sub(counter.get()));
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
