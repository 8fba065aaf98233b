//! Where a node's control view comes from: its own process, or the control replicas that it watches.
//!
//! A node that is named replicas holds a stream to one of them, goes to the next when that falls silent, and
//! keeps the last view on disk, so that it can start while all of them are away.

mod accounts;
mod cache;
mod lender;
mod remote;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hiveops_proto::control::ControlView;
use tokio::sync::watch;

pub(crate) use accounts::{AccountError, Accounts};
pub use cache::CacheError;
pub(crate) use lender::{AskError, Lender};
pub use remote::{Following, follow};

/// The views, and how fresh they are.
#[derive(Debug, Clone)]
pub struct ControlSource {
    pub(crate) views: watch::Receiver<Arc<ControlView>>,
    /// When a replica last said that it knows of no later view; none when the plane is in this process and
    /// always knows.
    pub(crate) confirmed: Option<watch::Receiver<Option<Instant>>>,
    /// How old the view was when the node began with it.
    pub(crate) begun_at_age: Duration,
    /// Who lends the node its share of the limits of the cluster; none when it is alone.
    pub(crate) lender: Option<Lender>,
    /// Where users log in; none when no replica is known.
    pub(crate) accounts: Option<Accounts>,
}

impl ControlSource {
    /// The view of now.
    pub fn view(&self) -> Arc<ControlView> {
        self.views.borrow().clone()
    }
}

/// The plane of this process.
impl From<watch::Receiver<Arc<ControlView>>> for ControlSource {
    fn from(views: watch::Receiver<Arc<ControlView>>) -> Self {
        Self { views, confirmed: None, begun_at_age: Duration::ZERO, lender: None, accounts: None }
    }
}

/// What a node would start from while no replica answers.
#[derive(Debug)]
pub struct LastView {
    /// The view.
    pub view: ControlView,
    /// How long ago it was written, as far as the machine's clock can tell.
    pub age: Duration,
}

/// Looks at the last view without using it; none when there has been none.
pub fn last_view(data_dir: &Path) -> Result<Option<LastView>, CacheError> {
    let view = cache::read(data_dir)?;
    Ok(view.map(|view| LastView { view, age: cache::age(data_dir) }))
}

/// Which replicas a node watches.
#[derive(Debug, Clone)]
pub struct Replicas {
    /// Their addresses, as `http://host:port`.
    pub urls: Vec<String>,
    /// The secret of the cluster, where it has one.
    pub secret: Option<crate::config::Secret>,
    /// The directory that holds the last view.
    pub data_dir: PathBuf,
}

impl Replicas {
    /// The address of the replica whose turn it is, without a slash at its end.
    fn url(&self, turn: usize) -> &str {
        self.urls[turn % self.urls.len()].trim_end_matches('/')
    }

    /// The request with what shows that the node belongs to the cluster.
    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.secret {
            Some(secret) => request.bearer_auth(secret.expose()),
            None => request,
        }
    }
}

/// Why a node has no control view to start with.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The last view cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is none, and nobody gives one.
    #[error(
        "no control replica answers and {} has no view from before: start one of {urls} (HIVEOPS_CONTROL)",
        dir.display()
    )]
    NoView {
        /// The replicas.
        urls: String,
        /// Where the last view would be.
        dir: PathBuf,
    },
    /// The HTTP client cannot be made.
    #[error("the way to the control replicas cannot be set up")]
    Setup(#[source] reqwest::Error),
}
