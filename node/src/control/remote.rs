//! The stream to a control replica, one after the other for as long as the node lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hiveops_proto::control::{ControlView, WatchLine};
use hiveops_proto::path::CONTROL_WATCH;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Accounts, ControlError, ControlSource, Lender, Replicas, cache};
use crate::telemetry::Chain;
use crate::time::{jittered, random};

/// A replica says something every second; one that is silent for a few of these is left.
const SILENCE_MAX: Duration = Duration::from_secs(3);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one line at most: 64 subscriptions with their schemas, and thousands of revocations.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a node that has no view from before waits for the first one.
const FIRST_VIEW_WITHIN: Duration = Duration::from_secs(30);

/// The wait before the next replica is tried: a random part of a ceiling that doubles up to the cap.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// Keeps the views coming; run it beside the node.
pub struct Following {
    http: reqwest::Client,
    replicas: Replicas,
    views: watch::Sender<Option<Arc<ControlView>>>,
    confirmed: watch::Sender<Option<Instant>>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the replica cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the replica answers {0}")]
    Refused(reqwest::StatusCode),
    #[error("the replica has fallen silent")]
    Silent,
    #[error("the replica has ended the stream")]
    Closed,
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a line cannot be read")]
    Line(#[source] serde_json::Error),
    #[error("the view is of another cluster: HIVEOPS_CONTROL or the data directory is another deployment's")]
    OtherCluster,
}

/// Begins to watch. Gives the views from the last one on disk on, or from the first that a replica sends;
/// an error when there is neither.
pub async fn follow(replicas: Replicas) -> Result<(ControlSource, impl Future<Output = ()>), ControlError> {
    let cached = cache::read(&replicas.data_dir)?.map(Arc::new);
    let begun_at_age = cached.as_ref().map_or(Duration::ZERO, |_| cache::age(&replicas.data_dir));
    let http = reqwest::Client::builder()
        // A replica is reached directly; a proxy of the environment is for other traffic.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(ControlError::Setup)?;
    let (urls, dir) = (replicas.urls.join(", "), replicas.data_dir.clone());
    let lender = Some(Lender::new(http.clone(), replicas.clone()));
    let accounts = Some(Accounts::new(http.clone(), replicas.clone()));
    let following = Following {
        http,
        replicas,
        views: watch::Sender::new(cached.clone()),
        confirmed: watch::Sender::new(None),
    };
    let (mut first, confirmed) = (following.views.subscribe(), following.confirmed.subscribe());
    let mut driver = Box::pin(following.run());
    let view = match cached {
        Some(view) => view,
        None => {
            let arrived = async { first.wait_for(Option::is_some).await.ok().and_then(|view| view.clone()) };
            let view = tokio::select! {
                // It does not end by itself.
                () = &mut driver => None,
                view = timeout(FIRST_VIEW_WITHIN, arrived) => view.ok().flatten(),
            };
            view.ok_or(ControlError::NoView { urls, dir })?
        }
    };
    let (sender, views) = watch::channel(view);
    let relay = async move {
        while first.changed().await.is_ok() {
            if let Some(view) = first.borrow_and_update().clone() {
                sender.send_replace(view);
            }
        }
    };
    let run = async move {
        tokio::join!(driver, relay);
    };
    Ok((ControlSource { views, confirmed: Some(confirmed), begun_at_age, lender, accounts }, run))
}

impl Following {
    async fn run(self) {
        let mut attempt = 0_u32;
        for turn in 0_usize.. {
            let url = self.replicas.url(turn);
            let before = *self.confirmed.borrow();
            let ended = self.stream(url).await;
            // Who has said something was a good one.
            attempt = if *self.confirmed.borrow() == before { attempt.saturating_add(1) } else { 0 };
            tracing::warn!(url, attempt, error = %Chain(&ended), "control link is down");
            tokio::time::sleep(jittered(BACKOFF_BASE, BACKOFF_CAP, attempt, random())).await;
        }
    }

    async fn stream(&self, url: &str) -> Ended {
        let request = self.replicas.signed(self.http.get(format!("{url}{CONTROL_WATCH}")));
        let mut response = match timeout(SILENCE_MAX, request.send()).await {
            Ok(Ok(response)) if response.status().is_success() => response,
            Ok(Ok(response)) => return Ended::Refused(response.status()),
            Ok(Err(error)) => return Ended::Unreachable(error.without_url()),
            Err(_) => return Ended::Silent,
        };
        tracing::info!(url, "control link is up");
        let mut buffer = Vec::new();
        loop {
            match timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(Some(chunk))) => buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ended::Closed,
                Ok(Err(error)) => return Ended::Unreachable(error.without_url()),
                Err(_) => return Ended::Silent,
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Err(ended) = self.take(&line).await {
                    return ended;
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Ended::TooLong;
            }
        }
    }

    async fn take(&self, line: &[u8]) -> Result<(), Ended> {
        let (stale, revision) = match serde_json::from_slice(line).map_err(Ended::Line)? {
            WatchLine::Alive { revision, stale } => (stale, revision),
            WatchLine::View { view, stale } => {
                let revision = view.revision;
                self.put(Arc::new(*view)).await?;
                (stale, revision)
            }
        };
        let known = self.views.borrow().as_ref().map(|view| view.revision);
        // A replica that is behind this node confirms nothing.
        if !stale && known.is_none_or(|known| revision >= known) {
            self.confirmed.send_replace(Some(Instant::now()));
        }
        Ok(())
    }

    /// Puts a view in force that is later than the one before, and never an older one.
    async fn put(&self, view: Arc<ControlView>) -> Result<(), Ended> {
        let known = self.views.borrow().clone();
        if let Some(known) = known {
            let (here, there) = (&known.access.cluster_id, &view.access.cluster_id);
            if here.is_some() && here != there {
                return Err(Ended::OtherCluster);
            }
            if view.revision <= known.revision {
                return Ok(());
            }
        }
        self.keep(Arc::clone(&view)).await;
        self.views.send_replace(Some(view));
        Ok(())
    }

    /// A view that cannot be kept is in force all the same; the node may then not be able to start.
    async fn keep(&self, view: Arc<ControlView>) {
        let dir: PathBuf = self.replicas.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || cache::write(&dir, &view)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %error, "control view cannot be kept (HIVEOPS_DATA_DIR)")
            }
            Err(error) => tracing::error!(error = %error, "control view cannot be kept"),
        }
    }
}
