//! Calls to a node's HTTP routes, and its problem documents in readable form.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use hiveops_client::Trust;
use hiveops_node::config::CLIENT_ENV;
use hiveops_proto::http::Problem;
use reqwest::header::ACCEPT;
use reqwest::{Method, Request, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::https::{self, Cause, Failed};
use crate::output::Usage;

/// Longer than the node's own deadline for the bus, so that its answer is the one people see.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer has some KiB, figures of a large cluster included.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// What of an answer that is no problem document is worth showing.
const EXCERPT_CHARS: usize = 200;

/// Where the commands look when nobody names an address.
pub(crate) const USUAL_NODE: &str = "http://127.0.0.1:8000";

/// Which node, and with which credential.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// Address of the node
    #[arg(long, env = CLIENT_ENV[0], default_value = USUAL_NODE)]
    pub(crate) url: String,
    /// Certificates to trust besides those of the system, as PEM: of authorities, or the node's own
    #[arg(long, env = CLIENT_ENV[2], value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Credential, where the node asks for one
    #[arg(long, env = CLIENT_ENV[1], hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// A node's HTTP surface.
pub(crate) struct Api {
    http: reqwest::Client,
    /// None for a node without TLS.
    trust: Option<Trust>,
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
        source: Cause,
    },
    #[error("the node at {url} gave no whole answer")]
    NoAnswer {
        url: String,
        #[source]
        source: Cause,
    },
    #[error("{}", readable(.0))]
    Problem(Box<Problem>),
    #[error("{url} answered {status}: {excerpt}")]
    Unexpected { url: String, status: StatusCode, excerpt: String },
    #[error("{url} answered with more than {bytes_max} bytes")]
    TooLong { url: String, bytes_max: usize },
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
}

impl Api {
    pub(crate) fn new(target: Target) -> anyhow::Result<Self> {
        Self::trusting(target, Target::trust)
    }

    /// For an address of this machine, whoever has it, whichever certificate is shown there. It gets no credential.
    pub(crate) fn of_this_machine(url: String) -> anyhow::Result<Self> {
        Self::trusting(Target::of(url), |_| Ok(Trust::of_this_machine()?))
    }

    /// `trust` is asked when the node is to end TLS.
    fn trusting(
        target: Target,
        trust: impl FnOnce(&Target) -> anyhow::Result<Trust>,
    ) -> anyhow::Result<Self> {
        let scheme = reqwest::Url::parse(&target.url).ok().map(|url| url.scheme().to_owned());
        let trust = match scheme.as_deref() {
            Some("http") => None,
            Some("https") => Some(trust(&target)?),
            _ => {
                let text = format!(
                    "`{}` is not the address of a node (--url); write it like http://127.0.0.1:8000",
                    target.url
                );
                return Err(Usage(text).into());
            }
        };
        let http = reqwest::Client::builder()
            // A node is reached directly; a proxy of the environment is for other traffic.
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { http, trust, url: target.url.trim_end_matches('/').to_owned(), token: target.token })
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
        let request = request.build().map_err(|error| self.failed(error))?;
        let url = request.url().to_string();
        let (status, body) = self.exchange(request, ANSWER_BYTES_MAX).await?;
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

    /// The body of a page that is no JSON, such as the metrics; `bytes_max` at most.
    pub(crate) async fn text(&self, path: &str, bytes_max: usize) -> Result<String, Error> {
        let request = self.request(Method::GET, path).header(ACCEPT, "text/plain; version=0.0.4");
        let request = request.build().map_err(|error| self.failed(error))?;
        let url = request.url().to_string();
        let (status, text) = self.exchange(request, bytes_max).await?;
        if status.is_success() {
            return Ok(text);
        }
        Err(Error::Unexpected { url, status, excerpt: text.chars().take(EXCERPT_CHARS).collect() })
    }

    async fn exchange(&self, request: Request, bytes_max: usize) -> Result<(StatusCode, String), Error> {
        let url = request.url().to_string();
        if let Some(trust) = &self.trust {
            let answer = https::exchange(trust, request, (CONNECT_TIMEOUT, ANSWER_TIMEOUT), bytes_max).await;
            return answer.map_err(|failed| match failed {
                Failed::Connecting(source) => Error::Unreachable { url: self.url.clone(), source },
                Failed::Asking(source) => Error::NoAnswer { url: self.url.clone(), source },
                Failed::TooLong => Error::TooLong { url, bytes_max },
            });
        }
        let mut response = self.http.execute(request).await.map_err(|error| self.failed(error))?;
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Error::TooLong { url, bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn failed(&self, source: reqwest::Error) -> Error {
        // Ours is the sentence, the library's is the cause; its address would stand there twice.
        let (url, source) = (self.url.clone(), source.without_url());
        if source.is_connect() || source.is_builder() {
            Error::Unreachable { url, source: source.into() }
        } else {
            Error::NoAnswer { url, source: source.into() }
        }
    }
}

impl Target {
    /// A node that asks for nothing.
    pub(crate) fn of(url: String) -> Self {
        Self { url, ca: None, token: None }
    }

    /// Whether the node is to end TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.url.starts_with("https:") || self.url.starts_with("wss:")
    }

    /// Whom to believe over TLS.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        let Some(path) = &self.ca else {
            return Trust::system().context("the system's certificates cannot be used");
        };
        let read = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}` (--ca)", path.display()))?;
        Trust::system_and(&read).with_context(|| format!("`{}` is of no use (--ca)", path.display()))
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
