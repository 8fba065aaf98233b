//! How a node has control decide about logins: it asks one replica after the other until one of them does.
//! What is sent and what comes back holds secrets, so nothing of it is in an error or a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_proto::CorrelationId;
use hiveops_proto::access::User;
use hiveops_proto::auth::{Grant, LoginRequest, LogoutRequest, RefreshRequest};
use hiveops_proto::http::{Problem, ProblemKind};
use hiveops_proto::id::UserId;
use hiveops_proto::path::{CONTROL_LOGIN, CONTROL_LOGOUT, CONTROL_REFRESH, CONTROL_USER, CORRELATION_HEADER};
use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Replicas;

/// For one replica: a password takes it 50 ms, and it lets some wait before it says that it is busy.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer at most: two tokens and a user.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// The way to those who know the users; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    http: reqwest::Client,
    replicas: Arc<Replicas>,
    /// The replica that is asked first; another one once it has failed.
    turn: Arc<AtomicUsize>,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// A replica decided against it; the words are for the client.
    #[error("control answers {kind}")]
    Refused { kind: ProblemKind, detail: Option<String>, retry_after_seconds: Option<u32> },
    /// No replica could decide.
    #[error("no control replica can be asked: {0}")]
    Unavailable(&'static str),
}

/// What one replica said.
enum Said {
    Body(Vec<u8>),
    Refused(AccountError),
    /// Another one may do better.
    Nothing(AccountError),
}

impl Accounts {
    pub(super) fn new(http: reqwest::Client, replicas: Replicas) -> Self {
        Self { http, replicas: Arc::new(replicas), turn: Arc::default() }
    }

    pub(crate) async fn login(
        &self,
        login: &LoginRequest,
        id: &CorrelationId,
    ) -> Result<Grant, AccountError> {
        read(&self.post(CONTROL_LOGIN, login, id).await?)
    }

    /// Asked again of another replica when one has not answered: control takes a token twice for a moment.
    pub(crate) async fn refresh(
        &self,
        refresh: &RefreshRequest,
        id: &CorrelationId,
    ) -> Result<Grant, AccountError> {
        read(&self.post(CONTROL_REFRESH, refresh, id).await?)
    }

    pub(crate) async fn logout(
        &self,
        logout: &LogoutRequest,
        id: &CorrelationId,
    ) -> Result<(), AccountError> {
        self.post(CONTROL_LOGOUT, logout, id).await.map(|_| ())
    }

    pub(crate) async fn user(&self, user: &UserId, id: &CorrelationId) -> Result<User, AccountError> {
        let path = CONTROL_USER.replace("{id}", user.as_str());
        read(&self.call(|http, url| http.get(format!("{url}{path}")), id).await?)
    }

    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        id: &CorrelationId,
    ) -> Result<Vec<u8>, AccountError> {
        let body = serde_json::to_vec(body)
            .map_err(|_| AccountError::Unavailable("the question cannot be written"))?;
        let request = |http: &reqwest::Client, url: &str| {
            let json = (reqwest::header::CONTENT_TYPE, "application/json");
            http.post(format!("{url}{path}")).header(json.0, json.1).body(body.clone())
        };
        self.call(request, id).await
    }

    /// Each replica once, beginning with the one that answered last.
    async fn call(
        &self,
        request: impl Fn(&reqwest::Client, &str) -> RequestBuilder,
        id: &CorrelationId,
    ) -> Result<Vec<u8>, AccountError> {
        let first = self.turn.load(Ordering::Relaxed);
        let mut last = AccountError::Unavailable("none is configured");
        for turn in (first..).take(self.replicas.urls.len()) {
            let request =
                request(&self.http, self.replicas.url(turn)).header(CORRELATION_HEADER, id.as_str());
            let said = timeout(CALL_TIMEOUT, ask(self.replicas.signed(request))).await;
            match said.unwrap_or(Said::Nothing(AccountError::Unavailable("it has not answered in time"))) {
                Said::Body(body) => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return Ok(body);
                }
                Said::Refused(refused) => return Err(refused),
                Said::Nothing(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn ask(request: RequestBuilder) -> Said {
    let unreachable = || Said::Nothing(AccountError::Unavailable("it cannot be reached"));
    let Ok(mut response) = request.send().await else { return unreachable() };
    let (status, retry_after_seconds) = (response.status(), retry_after(&response));
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(_) => return unreachable(),
        }
        if body.len() > ANSWER_BYTES_MAX {
            return Said::Nothing(AccountError::Unavailable("its answer is too long"));
        }
    }
    if status.is_success() { Said::Body(body) } else { refused(status, &body, retry_after_seconds) }
}

/// What is said to the client, and what is between the node and its control plane only: a wrong secret of the
/// cluster is no wrong password.
fn refused(status: StatusCode, body: &[u8], retry_after_seconds: Option<u32>) -> Said {
    let Ok(Problem { code: kind, detail, .. }) = serde_json::from_slice::<Problem>(body) else {
        tracing::warn!(
            status = status.as_u16(),
            "control replica answers what this node does not understand"
        );
        return Said::Nothing(AccountError::Unavailable("its answer cannot be read"));
    };
    let told = AccountError::Refused { kind, detail, retry_after_seconds };
    match kind {
        ProblemKind::InvalidCredentials
        | ProblemKind::InvalidRefreshToken
        | ProblemKind::RefreshReused
        | ProblemKind::LoginThrottled
        | ProblemKind::Busy
        | ProblemKind::InvalidData
        | ProblemKind::NotFound => Said::Refused(told),
        ProblemKind::NoQuorum | ProblemKind::NoLeader => Said::Nothing(told),
        _ => {
            tracing::warn!(status = status.as_u16(), code = %kind, "control replica refuses this node");
            Said::Nothing(AccountError::Unavailable("it refuses this node (HIVEOPS_CLUSTER_SECRET)"))
        }
    }
}

fn retry_after(response: &Response) -> Option<u32> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AccountError> {
    // The parser's words may repeat what it read.
    serde_json::from_slice(body).map_err(|_| AccountError::Unavailable("its answer cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: &str) -> Vec<u8> {
        serde_json::json!({
            "type": "x", "title": "x", "status": 401, "detail": "words", "code": code, "correlation_id": "c1",
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_decision_is_final_and_whatever_else_goes_wrong_is_tried_elsewhere() {
        for code in ["invalid_credentials", "login_throttled", "busy", "refresh_reused", "not_found"] {
            let said = refused(StatusCode::UNAUTHORIZED, &problem(code), Some(7));
            let Said::Refused(AccountError::Refused { kind, retry_after_seconds, .. }) = said else {
                panic!("{code} was not final")
            };
            assert_eq!((kind.as_str(), retry_after_seconds), (code, Some(7)));
        }
        // The secret of the cluster is wrong: the client has nothing to do with that.
        for code in ["unauthorized", "forbidden", "internal", "draining", "no_quorum", "no_leader"] {
            assert!(
                matches!(refused(StatusCode::UNAUTHORIZED, &problem(code), None), Said::Nothing(_)),
                "{code}"
            );
        }
        assert!(matches!(refused(StatusCode::BAD_GATEWAY, b"<html>", None), Said::Nothing(_)));
    }
}
