//! A node in this process on a free port, and clients that wait for what they want with a deadline.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hiveops_node::config::{Defaults, Inputs, resolve};
use hiveops_node::control::{ControlSource, Replicas};
use hiveops_node::{Config, Listening, RunError};
use hiveops_proto::Limits;
use hiveops_proto::control::{AccessView, ContractView, ControlView, DeprecationPolicy, Revision};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long a test waits for something that must come. Long, because a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits with [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// Asks again and again until something holds: a level, not a moment.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    soon(what, async {
        while !holds().await {
            ticks.tick().await;
        }
    })
    .await;
}

/// A running node.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    /// The listener for admins, where there is one.
    pub(crate) admin: Option<SocketAddr>,
    /// The control plane; none once it is lost.
    control: Option<watch::Sender<Arc<ControlView>>>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Node {
    /// Starts a node with these settings, as its environment would say them.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(None, settings).await
    }

    /// Starts a node that keeps its logs in `data_dir`.
    pub(crate) async fn start_in(data_dir: Option<&Path>, settings: &[(&str, &str)]) -> Self {
        let config = config(data_dir, settings);
        let view = view(&config, config.limits.clone(), 1);
        Self::start_from(config, view).await
    }

    /// Starts a node whose control plane says this of who may come in.
    pub(crate) async fn start_with_access(settings: &[(&str, &str)], access: AccessView) -> Self {
        let config = config(None, settings);
        let view = ControlView { access, ..view(&config, config.limits.clone(), 1) };
        Self::start_from(config, view).await
    }

    async fn start_from(config: Config, view: ControlView) -> Self {
        let (control, views) = watch::channel(Arc::new(view));
        Self::spawn(config, views.into(), Some(control), std::future::pending()).await
    }

    /// Starts a node that follows a control replica, and keeps its last view in `data_dir`.
    pub(crate) async fn start_following(data_dir: &Path, urls: &[String], settings: &[(&str, &str)]) -> Self {
        let control = ("HIVEOPS_CONTROL", &*urls.join(","));
        let config = config(Some(data_dir), &[settings, &[control]].concat());
        let replicas = Replicas {
            urls: config.control.clone(),
            secret: config.cluster_secret.clone(),
            data_dir: data_dir.to_owned(),
        };
        let following = hiveops_node::control::follow(replicas);
        let (source, following) = soon("the first view", following).await.expect("a view");
        Self::spawn(config, source, None, following).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the node runs beside the test; there is no owner to spawn by"
    )]
    async fn spawn(
        config: Config,
        source: ControlSource,
        control: Option<watch::Sender<Arc<ControlView>>>,
        beside: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, listening) = oneshot::channel();
        let node = hiveops_node::run(
            config,
            source,
            move |listening| {
                let _ = ready.send(listening);
            },
            async {
                let _ = stopped.await;
            },
        );
        let running = tokio::spawn(async move {
            tokio::pin!(beside);
            let endless = async {
                beside.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = node => ended,
                () = endless => unreachable!("it has no end"),
            }
        });
        let Listening { address, admin } = soon("the node", listening).await.expect("the node starts");
        Self { address, admin, control, stop: Some(stop), running }
    }

    /// Has the control plane say something else of who may come in.
    pub(crate) fn set_access(&self, change: impl FnOnce(&mut AccessView)) {
        self.set_view(|view| change(&mut view.access));
    }

    /// Puts other limits in force, as the control plane would.
    pub(crate) fn set_limits(&self, change: impl FnOnce(&mut Limits)) {
        self.set_view(|view| change(&mut view.limits));
    }

    fn set_view(&self, change: impl FnOnce(&mut ControlView)) {
        let control = self.control.as_ref().expect("the control plane is there");
        control.send_modify(|view| {
            let mut next = ControlView::clone(view);
            change(&mut next);
            next.revision.index += 1;
            *view = Arc::new(next);
        });
    }

    /// Takes the control plane away.
    pub(crate) fn lose_control(&mut self) {
        self.control = None;
    }

    /// Stops the node in order and waits for its end.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.ended().await;
    }

    /// Waits for the orderly end of a node that was told to go away.
    pub(crate) async fn ended(mut self) {
        soon("the end of the node", &mut self.running).await.expect("no panic").expect("an orderly end");
    }

    /// Ends the node at once, as a crash would: it takes leave of nobody.
    pub(crate) async fn kill(mut self) {
        self.running.abort();
        assert!(
            soon("the end of the node", &mut self.running).await.is_err_and(|error| error.is_cancelled())
        );
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = soon("a response", reqwest::get(self.http(path))).await.expect("an answer");
        response.json().await.expect("JSON")
    }

    /// Publishes through the broadcast route and returns the reply, which must be a success.
    pub(crate) async fn publish(&self, subscription: &str, message_type: &str, data: Value) -> Value {
        let response = self.try_publish(subscription, message_type, data).await;
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    pub(crate) async fn try_publish(
        &self,
        subscription: &str,
        message_type: &str,
        data: Value,
    ) -> reqwest::Response {
        let path = format!(
            "/api/dashboard/websocket/broadcast?subscription={subscription}&message_type={message_type}"
        );
        let request = reqwest::Client::new().post(self.http(&path)).json(&data).send();
        soon("a reply", request).await.expect("an answer")
    }

    /// The value of a metric, labels and all as they are written in the text format; 0 when it is absent.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.admin.unwrap_or(self.address));
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric satisfies a condition: a level, not a moment.
    pub(crate) async fn metric_reaches(&self, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        soon(name, async {
            loop {
                ticks.tick().await;
                let value = self.metric(name).await;
                if holds(value) {
                    return value;
                }
            }
        })
        .await
    }
}

pub(crate) fn config(data_dir: Option<&Path>, settings: &[(&str, &str)]) -> Config {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("HIVEOPS_LISTEN".to_owned(), "127.0.0.1:0".to_owned());
    env.insert("HIVEOPS_NODE_ID".to_owned(), "n1".to_owned());
    env.insert("HIVEOPS_SHARDS".to_owned(), "2".to_owned());
    // A test that stops its node waits for nobody's turn, unless it is about that.
    env.insert("HIVEOPS_DRAIN_SECONDS".to_owned(), "0".to_owned());
    if let Some(dir) = data_dir {
        env.insert("HIVEOPS_DATA_DIR".to_owned(), dir.to_str().expect("a UTF-8 path").to_owned());
    }
    env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let read = Box::new(|path: &Path| std::fs::read_to_string(path));
    let inputs = Inputs { flags: BTreeMap::new(), env, read };
    match resolve(&inputs, &defaults()) {
        Ok(loaded) => loaded.config,
        Err(mistakes) => panic!("{mistakes}"),
    }
}

fn defaults() -> Defaults {
    Defaults {
        host: None,
        process: 1,
        cores: 2,
        log: "off".to_owned(),
        log_format: hiveops_node::config::LogFormat::Json,
        // The tests are the control plane.
        control_beside: true,
    }
}

pub(crate) fn view(config: &Config, limits: Limits, index: u64) -> ControlView {
    ControlView {
        revision: Revision { term: 1, index },
        limits,
        sources: config.limit_sources.clone(),
        contract: ContractView {
            current: config.contract.clone(),
            supported_versions: vec![config.contract.version],
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: hiveops_proto::schema_digest(),
            contract_digest: Some(hiveops_proto::contract_digest()),
        },
        access: Default::default(),
    }
}

/// A WebSocket client.
pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a socket ended with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Socket {
    /// Connects to `/api/dashboard/ws/` and `path`, such as `dashboard?subscriptions=tasks`.
    pub(crate) async fn connect(node: &Node, path: &str) -> Self {
        Self::connect_with(node, path, &[]).await
    }

    pub(crate) async fn connect_with(node: &Node, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let url = format!("ws://{}/api/dashboard/ws/{path}", node.address);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let (stream, _) =
            soon("a handshake", tokio_tungstenite::connect_async(request)).await.expect("an upgrade");
        Self { stream }
    }

    /// Connects and reads the first frames, up to the last part of the snapshots of what was joined.
    pub(crate) async fn joined(node: &Node, path: &str) -> Self {
        let mut socket = Self::connect(node, path).await;
        socket.expect("connection_established").await;
        let initialized = socket.wait_for("dashboard_initialized").await;
        let recovered = initialized["recovered"].as_object().expect("a map").clone();
        for _ in recovered.values().filter(|recovered| **recovered == json!(false)) {
            loop {
                let part = socket.wait_for("snapshot").await;
                if part["part"] == part["parts"] {
                    break;
                }
            }
        }
        socket
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        soon("a send", self.stream.send(Message::text(text))).await.expect("the socket is open");
    }

    /// The next frame; control frames of the protocol are passed over.
    pub(crate) async fn next(&mut self) -> Value {
        match soon("a frame", self.next_message()).await {
            Ok(frame) => frame,
            Err(closed) => panic!("closed instead of a frame: {closed:?}"),
        }
    }

    /// The next frame, or what the socket ended with.
    pub(crate) async fn next_message(&mut self) -> Result<Value, Option<Closed>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(crate::schema::read(&text)),
                Some(Ok(Message::Close(frame))) => {
                    // The next read sends the answer; the node has then no reason to linger.
                    let _ = self.stream.next().await;
                    return Err(frame
                        .map(|frame| Closed { code: frame.code.into(), reason: frame.reason.to_string() }));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next frame, which must be of this type.
    pub(crate) async fn expect(&mut self, frame_type: &str) -> Value {
        let frame = self.next().await;
        assert_eq!(frame["type"], frame_type, "{frame}");
        frame
    }

    /// The next frame of this type; others are passed over.
    pub(crate) async fn wait_for(&mut self, frame_type: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == frame_type {
                return frame;
            }
        }
    }

    /// Reads to the end: the frames that still came, and the close frame.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, Option<Closed>) {
        let mut frames = Vec::new();
        loop {
            match soon("a frame or the end", self.next_message()).await {
                Ok(frame) => frames.push(frame),
                Err(closed) => return (frames, closed),
            }
        }
    }
}
