//! Calls to a node's HTTP routes, and its problem documents in readable form.

use std::time::Duration;

use hiveops_node::config::CLIENT_ENV;
use hiveops_proto::http::Problem;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::output::Usage;

/// Longer than the node's own deadline for the bus, so that its answer is the one people see.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What of an answer that is no problem document is worth showing.
const EXCERPT_CHARS: usize = 200;

/// Which node, and with which credential.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// Address of the node
    #[arg(long, env = CLIENT_ENV[0], default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// Credential, where the node asks for one
    #[arg(long, env = CLIENT_ENV[1], hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// A node's HTTP surface.
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "cannot reach a node at {url}; is it running? start one with `hiveops dev`, or name another with --url"
    )]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the node at {url} gave no whole answer")]
    NoAnswer {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{}", readable(.0))]
    Problem(Box<Problem>),
    #[error("{url} answered {status}: {excerpt}")]
    Unexpected { url: String, status: StatusCode, excerpt: String },
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
}

impl Api {
    pub(crate) fn new(target: Target) -> anyhow::Result<Self> {
        let scheme = reqwest::Url::parse(&target.url).ok().map(|url| url.scheme().to_owned());
        if scheme.as_deref() != Some("http") {
            let text = format!(
                "`{}` is not the address of a node (--url); write it like http://127.0.0.1:8000",
                target.url
            );
            return Err(Usage(text).into());
        }
        let http = reqwest::Client::builder()
            // A node is reached directly; a proxy of the environment is for other traffic.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { http, url: target.url.trim_end_matches('/').to_owned(), token: target.token })
    }

    /// Takes another credential from now on.
    pub(crate) fn set_token(&mut self, token: String) {
        self.token = Some(token);
    }

    /// Begins a call; the credential is in it already.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Makes a call and reads the JSON that answers it; `null` when it succeeds without a word.
    pub(crate) async fn call(&self, request: RequestBuilder) -> Result<Value, Error> {
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let (status, url) = (response.status(), response.url().to_string());
        let body = response.text().await.map_err(|error| self.failed(error))?;
        if let Ok(problem) = serde_json::from_str::<Problem>(&body)
            && !status.is_success()
        {
            return Err(Error::Problem(Box::new(problem)));
        }
        let unexpected =
            || Error::Unexpected { url, status, excerpt: body.chars().take(EXCERPT_CHARS).collect() };
        if body.is_empty() && status.is_success() {
            return Ok(Value::Null);
        }
        match serde_json::from_str(&body) {
            Ok(value) if status.is_success() => Ok(value),
            Ok(_) | Err(_) => Err(unexpected()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(self.request(Method::GET, path)).await
    }

    fn failed(&self, source: reqwest::Error) -> Error {
        // Ours is the sentence, the library's is the cause; its address would stand there twice.
        let (url, source) = (self.url.clone(), source.without_url());
        if source.is_connect() || source.is_builder() {
            Error::Unreachable { url, source }
        } else {
            Error::NoAnswer { url, source }
        }
    }
}

pub(crate) fn readable(problem: &Problem) -> String {
    let mut text = format!("{} ({} {})", problem.title, problem.status, problem.code);
    if let Some(detail) = &problem.detail {
        text.push_str(&format!(": {detail}"));
    }
    let list = |names: Vec<String>| names.join(", ");
    if let Some(names) = &problem.valid_subscriptions {
        let names = names.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\n  subscriptions: {}", list(names)));
    }
    if let Some(names) = &problem.valid_message_types {
        let names = names.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\n  message types: {}", list(names)));
    }
    text.push_str(&format!("\n  correlation_id: {}", problem.correlation_id));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_readable_and_lists_the_names_that_would_do() {
        let problem: Problem = serde_json::from_str(
            r#"{"type":"/problems/unknown_subscription","title":"Unknown subscription","status":422,
                "detail":"unknown subscription `nope`","code":"unknown_subscription","correlation_id":"c1",
                "valid_subscriptions":["agents","tasks"]}"#,
        )
        .unwrap();
        let text = Error::Problem(Box::new(problem)).to_string();
        assert!(
            text.starts_with("Unknown subscription (422 unknown_subscription): unknown subscription `nope`")
        );
        assert!(text.contains("subscriptions: agents, tasks") && text.ends_with("correlation_id: c1"));
    }
}
