//! A node with a certificate of a test's own authority, and clients that trust it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hiveops_testkit::certificates::Authority;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Node, Socket, soon};

/// What the client's kernel may hold for one that is slow.
pub(super) const SLOW_BYTES: u32 = 32 * 1_024;

static VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
pub(super) static TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
pub(super) static TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A running node, and what belongs to its certificate.
pub(super) struct Secured {
    pub(super) node: Node,
    pub(super) authority: Authority,
    dir: tempfile::TempDir,
}

/// What a client does by way of TLS.
pub(super) struct Manner {
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) alpn: &'static [&'static [u8]],
    pub(super) receive_bytes: Option<u32>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { versions: VERSIONS, alpn: &[], receive_bytes: None }
    }
}

impl Secured {
    pub(super) async fn start(settings: &[(&str, &str)]) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
        // As certbot has it: names that stay, and links that are moved.
        let first = issue(&authority, dir.path(), "first");
        std::os::unix::fs::symlink(&first, dir.path().join("live")).unwrap();
        let (cert, key) = (dir.path().join("live/cert.pem"), dir.path().join("live/key.pem"));
        let files =
            [("HIVEOPS_TLS_CERT", cert.to_str().unwrap()), ("HIVEOPS_TLS_KEY", key.to_str().unwrap())];
        let node = Node::start(&[&files[..], settings].concat()).await;
        Self { node, authority, dir }
    }

    pub(super) fn live(&self, file: &str) -> PathBuf {
        self.dir.path().join("live").join(file)
    }

    /// A new pair in a directory of its own.
    pub(super) fn issue(&self, name: &str) -> PathBuf {
        issue(&self.authority, self.dir.path(), name)
    }

    /// Makes that the one that is live, in one step.
    pub(super) fn put_live(&self, pair: &Path) {
        let link = self.dir.path().join("next");
        std::os::unix::fs::symlink(pair, &link).unwrap();
        std::fs::rename(link, self.dir.path().join("live")).unwrap();
    }

    pub(super) fn config(&self, manner: &Manner) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(manner.versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = manner.alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// Shakes hands, and no more.
    pub(super) async fn try_stream(&self, manner: &Manner) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = manner.receive_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = soon("a connection", socket.connect(self.node.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(self.config(manner));
        let name = ServerName::try_from("localhost").unwrap();
        soon("a handshake", connector.connect(name, stream)).await
    }

    pub(super) async fn stream(&self) -> TlsStream<TcpStream> {
        self.try_stream(&Manner::default()).await.unwrap()
    }

    /// A session.
    pub(super) async fn connect(&self, path: &str, manner: &Manner) -> Socket {
        let stream = MaybeTlsStream::Rustls(self.try_stream(manner).await.unwrap());
        let request = format!("wss://localhost/api/dashboard/ws/{path}").into_client_request().unwrap();
        let (stream, _) =
            soon("an upgrade", tokio_tungstenite::client_async(request, stream)).await.expect("an upgrade");
        Socket { stream }
    }

    /// A request on a connection of its own, and the status and body of its answer.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let mut stream = self.stream().await;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        soon("a write", stream.write_all(format!("{head}{body}").as_bytes())).await.unwrap();
        let mut answer = Vec::new();
        soon("an answer", stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Publishes, and returns its place in the log.
    pub(super) async fn publish(&self, subscription: &str, message_type: &str, data: &Value) -> u64 {
        let path = format!(
            "/api/dashboard/websocket/broadcast?subscription={subscription}&message_type={message_type}"
        );
        let (status, body) = self.call("POST", &path, Some(data)).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["seq"].as_u64().unwrap()
    }

    pub(super) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.call("GET", "/metrics", None).await;
        // The body may come in chunks; their lengths stand on lines of their own.
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric satisfies a condition: a level, not a moment.
    pub(super) async fn metric_reaches(&self, name: &str, holds: impl Fn(f64) -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        soon(name, async {
            while !holds(self.metric(name).await) {
                ticks.tick().await;
            }
        })
        .await;
    }
}

fn issue(authority: &Authority, dir: &Path, name: &str) -> PathBuf {
    let dir = dir.join(name);
    std::fs::create_dir(&dir).unwrap();
    let identity = authority.issue(&["localhost", "127.0.0.1"]).unwrap();
    identity.write(&(dir.join("cert.pem"), dir.join("key.pem"))).unwrap();
    dir
}
