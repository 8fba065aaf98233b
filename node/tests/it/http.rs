//! Calls of a node's HTTP routes, with what holds for every answer checked on the way.

use std::time::Duration;

use hiveops_proto::http::Problem;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::harness::{Node, soon};

/// What a route answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// A request in the making.
pub(crate) struct Call {
    request: reqwest::RequestBuilder,
}

impl Node {
    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        Call::new(method, self.http(path))
    }

    /// A call of the listener for admins.
    pub(crate) fn admin_call(&self, method: &str, path: &str) -> Call {
        Call::new(method, format!("http://{}{path}", self.admin.expect("a listener for admins")))
    }

    /// Waits until what a route shows at `pointer` is `value`.
    pub(crate) async fn shows(&self, path: &str, pointer: &str, value: &Value) {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        soon(pointer, async {
            while self.get(path).await.pointer(pointer) != Some(value) {
                ticks.tick().await;
            }
        })
        .await;
    }

    pub(crate) fn broadcast(&self, subscription: &str, message_type: &str) -> Call {
        let path = "/api/dashboard/websocket/broadcast";
        self.call("POST", &format!("{path}?subscription={subscription}&message_type={message_type}"))
    }
}

impl Call {
    fn new(method: &str, url: String) -> Self {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        // Nothing goes through a proxy of the environment, and no connection outlives its test.
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { request: client.request(method, url) }
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value) }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body) }
    }

    pub(crate) fn text(self, body: impl Into<String>) -> Self {
        Self { request: self.request.body(body.into()) }
    }

    /// Sends it and returns the status of what is no answer of a route.
    pub(crate) async fn plain(self) -> u16 {
        soon("a response", self.request.send()).await.expect("an answer").status().as_u16()
    }

    /// Sends it. Whatever the answer is, it has a correlation id, and a refusal is a problem document.
    pub(crate) async fn send(self) -> Answer {
        let response = soon("a response", self.request.send()).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = soon("a body", response.text()).await.expect("text");
        let answer = Answer { status, headers, text };
        assert!(!answer.header("x-correlation-id").is_empty(), "no correlation id: {answer:?}");
        if answer.status >= 400 && answer.status != 503 {
            answer.problem();
        }
        answer
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a visible header"))
    }

    /// The body of an answer that is no refusal.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The problem document, which must agree with the rest of the answer.
    pub(crate) fn problem(&self) -> Problem {
        let problem: Problem =
            serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no problem document: {self:?}"));
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.problem_type, format!("/problems/{}", problem.code));
        assert_eq!(self.header("x-correlation-id"), problem.correlation_id.as_str());
        problem
    }

    /// Status and code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.problem().code.to_string())
    }
}
