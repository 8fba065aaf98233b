//! A receiver of traces in the test's own process: OTLP over gRPC and over HTTP, as a collector has it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::{MethodRouter, post};
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::until;

/// A span, and which node sent it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) node: String,
    pub(crate) service: String,
    pub(crate) span: Span,
}

/// What has come so far, and the header that came with it.
#[derive(Clone, Default)]
struct Spans {
    all: Arc<Mutex<Vec<Seen>>>,
    secret: Arc<Mutex<Option<String>>>,
    /// Connections that were taken.
    connections: Arc<AtomicUsize>,
    /// Requests that were refused; none are, as a rule.
    refused: Arc<AtomicUsize>,
}

/// A running receiver; ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    spans: Spans,
    running: JoinHandle<()>,
}

/// The header that a test has the node send.
pub(crate) const SECRET: &str = "x-secret";

impl Drop for Receiver {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Seen {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match value(&self.span.attributes, name)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        match value(&self.span.attributes, name)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> SpanKind {
        SpanKind::try_from(self.span.kind).unwrap()
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    found.value.as_ref()?.value.as_ref()
}

impl Spans {
    fn take(&self, request: ExportTraceServiceRequest, secret: Option<&str>) {
        *self.secret.lock() = secret.map(str::to_owned);
        for of_node in request.resource_spans {
            let attributes = of_node.resource.unwrap_or_default().attributes;
            let text = |name| match value(&attributes, name) {
                Some(Value::StringValue(text)) => text.clone(),
                other => panic!("{name} of the resource is {other:?}"),
            };
            let (node, service) = (text("service.instance.id"), text("service.name"));
            let spans = of_node.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let seen = spans.map(|span| Seen { node: node.clone(), service: service.clone(), span });
            self.all.lock().extend(seen);
        }
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let secret = request.metadata().get(SECRET).map(|value| value.to_str().unwrap().to_owned());
        self.take(request.into_inner(), secret.as_deref());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Takes nothing for now.
struct Overloaded(Spans);

#[tonic::async_trait]
impl TraceService for Overloaded {
    async fn export(
        &self,
        _: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        Err(tonic::Status::unavailable("overloaded"))
    }
}

async fn over_http(State(spans): State<Spans>, headers: HeaderMap, body: axum::body::Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    spans.take(request, headers.get(SECRET).map(|value| value.to_str().unwrap()));
    ExportTraceServiceResponse::default().encode_to_vec()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the receiver runs beside the test; there is no owner to spawn by"
)]
impl Receiver {
    pub(crate) async fn grpc() -> Self {
        Self::by_grpc(TraceServiceServer::new).await
    }

    pub(crate) async fn http() -> Self {
        Self::by_http(post(over_http)).await
    }

    async fn by_grpc<S: TraceService>(service: impl FnOnce(Spans) -> TraceServiceServer<S>) -> Self {
        let (listener, url) = listen().await;
        let spans = Spans::default();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(service(spans.clone()));
        let running = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { url, spans, running }
    }

    async fn by_http(traces: MethodRouter<Spans>) -> Self {
        let (listener, url) = listen().await;
        let spans = Spans::default();
        let router = Router::new().route("/v1/traces", traces).with_state(spans.clone());
        let running = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self { url, spans, running }
    }

    /// Takes connections and what is written to them, and never answers.
    pub(crate) async fn hanging() -> Self {
        let (listener, url) = listen().await;
        let spans = Spans::default();
        let connections = Arc::clone(&spans.connections);
        let running = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await.unwrap());
                connections.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { url, spans, running }
    }

    /// Over HTTP: refuses everything for now, and says when to come again.
    pub(crate) async fn overloaded_http() -> Self {
        let refuse = async |State(spans): State<Spans>| {
            spans.refused.fetch_add(1, Ordering::Relaxed);
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")])
        };
        Self::by_http(post(refuse)).await
    }

    /// The same over gRPC.
    pub(crate) async fn overloaded_grpc() -> Self {
        Self::by_grpc(|spans| TraceServiceServer::new(Overloaded(spans))).await
    }

    /// Requests that were refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.spans.refused.load(Ordering::Relaxed)
    }

    /// Connections that were taken so far.
    pub(crate) fn connections(&self) -> usize {
        self.spans.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many spans have this correlation id, and returns them.
    pub(crate) async fn spans_of(&self, id: &str, count: usize) -> Vec<Seen> {
        let mut found = Vec::new();
        until("the spans", async || {
            found = self
                .spans
                .all
                .lock()
                .iter()
                .filter(|seen| seen.text("correlation_id") == Some(id))
                .cloned()
                .collect();
            found.len() >= count
        })
        .await;
        found
    }

    /// The secret header of the last request.
    pub(crate) fn secret(&self) -> Option<String> {
        self.spans.secret.lock().clone()
    }

    /// What came so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.spans.all.lock().clone()
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}
