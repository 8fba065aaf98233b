//! The stream that nodes hold: the view, and a line whenever it changes or a second has passed.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hiveops_proto::control::{Revision, WatchLine};
use hiveops_proto::http::ProblemKind;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use super::App;
use super::problem::Problem;
use super::server::stopped;
use crate::replica::plane::Views;

/// Between two lines at most: who hears nothing for a few of these looks for another replica.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Whoever comes while the cluster is being made need not come again: it has a state soon after it has a leader.
/// Shorter than a node waits for the first line.
const FIRST_STATE_WITHIN: Duration = Duration::from_secs(2);

/// Where a stream is.
struct Position {
    app: App,
    views: Views,
    stopping: Receiver<bool>,
    sent: Option<Revision>,
}

pub(crate) async fn watch(State(app): State<App>) -> Result<Response, Problem> {
    let mut views = app.service.plane.watch();
    let first = timeout(FIRST_STATE_WITHIN, views.wait_for(Option::is_some));
    if !first.await.is_ok_and(|first| first.is_ok()) {
        return Err(Problem::new(ProblemKind::NoQuorum, "the cluster has no first state yet"));
    }
    let stopping = app.stopping.clone();
    let lines = stream::unfold(Position { app, views, stopping, sent: None }, |mut position| async {
        let line = position.next().await?;
        Some((Ok::<_, Infallible>(line), position))
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

impl Position {
    /// The next line; none when the replica stops. What changed several times since is sent once.
    async fn next(&mut self) -> Option<Bytes> {
        if self.sent.is_some() {
            let changed = timeout(ALIVE_EVERY, self.views.changed());
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return None,
                // A timeout is what the lines in between are for.
                changed = changed => if let Ok(Err(_)) = changed { return None },
            }
        }
        let stale = !self.app.service.group.is_fresh();
        let view = self.views.borrow_and_update().clone()?;
        let line = match self.sent {
            Some(revision) if revision == view.revision => WatchLine::Alive { revision, stale },
            Some(_) | None => WatchLine::View { view: Box::new((*view).clone()), stale },
        };
        self.sent = Some(view.revision);
        let mut line = serde_json::to_vec(&line).expect("a view has only text as keys");
        line.push(b'\n');
        Some(Bytes::from(line))
    }
}
