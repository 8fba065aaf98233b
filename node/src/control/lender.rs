//! How a node asks control for its share of the limits of the cluster, one replica at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_proto::NodeId;
use hiveops_proto::http::Problem;
use hiveops_proto::lease::{LeaseAnswer, LeaseAsk};
use hiveops_proto::path::{CONTROL_LEASE, CONTROL_LEASE_END};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::timeout;

use super::Replicas;

/// A replica decides or refuses within 0.8 s; what takes longer than this hangs.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of an answer at most: a number for each of a thousand users, and for those who have too many.
const ANSWER_BYTES_MAX: usize = 8 * 1_048_576;

/// The way to the lender; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lender {
    http: reqwest::Client,
    replicas: Arc<Replicas>,
    /// The replica that is asked; another one once it has failed.
    turn: Arc<AtomicUsize>,
}

/// Why an ask was not answered. Whether it was heard is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the replica cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("the replica has not answered in time")]
    Late,
    #[error("there is no quorum: {0}")]
    NoQuorum(String),
    #[error("refused with {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

impl Lender {
    pub(super) fn new(http: reqwest::Client, replicas: Replicas) -> Self {
        Self { http, replicas: Arc::new(replicas), turn: Arc::default() }
    }

    /// How many replicas there are to try.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.urls.len()
    }

    /// Asks one replica, once: another try is another ask. The next call goes to another replica if this
    /// one fails.
    pub(crate) async fn ask(&self, ask: &LeaseAsk) -> Result<LeaseAnswer, AskError> {
        let body = serde_json::to_vec(ask).map_err(AskError::Unreadable)?;
        let answer = self.call(|http, url| http.post(format!("{url}{CONTROL_LEASE}")).body(body)).await?;
        serde_json::from_slice(&answer).map_err(AskError::Unreadable)
    }

    /// Tells one replica that a life of this node has ended.
    pub(crate) async fn end(&self, node: &NodeId, incarnation: u64) -> Result<(), AskError> {
        let path = CONTROL_LEASE_END.replace("{node}", node.as_str());
        let call = self.call(|http, url| http.delete(format!("{url}{path}?incarnation={incarnation}")));
        call.await.map(|_| ())
    }

    async fn call(
        &self,
        request: impl FnOnce(&reqwest::Client, &str) -> RequestBuilder,
    ) -> Result<Vec<u8>, AskError> {
        let turn = self.turn.load(Ordering::Relaxed);
        let request = self.replicas.signed(request(&self.http, self.replicas.url(turn)));
        let answered = async {
            let response = request.send().await.map_err(unreachable)?;
            read(response).await
        };
        let result = timeout(CALL_TIMEOUT, answered).await.unwrap_or(Err(AskError::Late));
        if result.is_err() {
            self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        }
        result
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, AskError> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(AskError::TooLong);
        }
    }
    if status.is_success() {
        return Ok(body);
    }
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    let detail = problem.and_then(|problem| problem.detail).unwrap_or_default();
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Err(AskError::NoQuorum(detail)),
        status => Err(AskError::Refused { status, detail }),
    }
}

fn unreachable(error: reqwest::Error) -> AskError {
    AskError::Unreachable(error.without_url())
}
