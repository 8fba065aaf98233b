//! Keeps the certificate in use up to date with its files: when they change, and on SIGHUP.
//!
//! A pair that is no good changes nothing: whoever renews a certificate writes two files one after the other, and
//! between them they do not fit.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::NodeId;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::Certificates;
use super::pair::{NoPair, Pair};
use crate::config::TlsFiles;
use crate::telemetry::metrics::Metrics;

/// How often the files are read. Their contents are compared, not their times: a link that points elsewhere is a
/// change as well.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of a file at most: a chain of a few certificates has some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What became of a pair that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    Loaded,
    /// The one before is still in use.
    Failed,
}

impl Reload {
    pub(crate) const ALL: [Self; 2] = [Self::Loaded, Self::Failed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Failed => "failed",
        }
    }
}

/// Why the files give no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("`{}` cannot be read", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the files hold no certificate with its key")]
    Pair(#[from] NoPair),
    #[error("SIGHUP cannot be listened for")]
    Signal(#[source] io::Error),
}

/// Both files as they were at a moment.
struct Texts {
    certificate: String,
    key: String,
}

/// What was tried last: the same is not tried again.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    Contents([u8; 32]),
    /// They could not be read, for this reason.
    Unread(String),
    /// Somebody has asked: whatever is there is to be tried.
    Nothing,
}

/// Looks at the files for as long as the node runs.
pub(crate) struct Keeper {
    files: TlsFiles,
    certificates: Certificates,
    tried: Tried,
    hangup: Signal,
    metrics: Arc<Metrics>,
    node_id: NodeId,
}

impl Keeper {
    /// Loads the first pair, without which a node does not start. Must be called inside a runtime.
    pub(crate) fn load(
        files: &TlsFiles,
        metrics: &Arc<Metrics>,
        node_id: &NodeId,
    ) -> Result<Self, LoadError> {
        let texts = Texts::read(files)?;
        let pair = Pair::read(&texts.certificate, &texts.key)?;
        // From here on SIGHUP does not end the process.
        let hangup = signal(SignalKind::hangup()).map_err(LoadError::Signal)?;
        let keeper = Self {
            files: files.clone(),
            certificates: Certificates::new(Arc::clone(&pair.config)),
            tried: Tried::Contents(texts.digest()),
            hangup,
            metrics: Arc::clone(metrics),
            node_id: node_id.clone(),
        };
        keeper.metrics.tls_expires.set(seconds(pair.own.not_after));
        Ok(keeper)
    }

    pub(crate) fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: a tick or a signal that nobody waited for is kept.
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => {}
                Some(()) = self.hangup.recv() => self.tried = Tried::Nothing,
            }
            let files = self.files.clone();
            // Files may lie where reading takes its time. Cancel-safe: the result is not needed any more.
            let read = tokio::select! {
                () = &mut shutdown => return,
                read = tokio::task::spawn_blocking(move || Texts::read(&files)) => read,
            };
            match read {
                Ok(texts) => self.consider(texts),
                Err(error) => tracing::error!(error = %error, "reading the certificate panicked"),
            }
        }
    }

    /// Takes what is new.
    fn consider(&mut self, texts: Result<Texts, LoadError>) {
        let now = match &texts {
            Ok(texts) => Tried::Contents(texts.digest()),
            Err(error) => Tried::Unread(crate::telemetry::Chain(error).to_string()),
        };
        if now == self.tried {
            return;
        }
        self.tried = now;
        let pair = texts.and_then(|texts| Ok(Pair::read(&texts.certificate, &texts.key)?));
        let outcome = match pair {
            Ok(pair) => {
                self.certificates.replace(pair.config);
                self.metrics.tls_expires.set(seconds(pair.own.not_after));
                tracing::info!(
                    node_id = %self.node_id,
                    serial = pair.serial,
                    expires = pair.own.not_after,
                    "certificate loaded, new connections are shown it"
                );
                Reload::Loaded
            }
            Err(error) => {
                tracing::error!(
                    node_id = %self.node_id,
                    error = %crate::telemetry::Chain(&error),
                    "certificate cannot be loaded, the one before stays in use"
                );
                Reload::Failed
            }
        };
        self.metrics.tls_reloads.with_label_values(&[outcome.as_str()]).inc();
    }
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, LoadError> {
        Ok(Self { certificate: read(&files.cert)?, key: read(&files.key)? })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.certificate.len().to_le_bytes());
        digest.update(&self.certificate);
        digest.update(&self.key);
        digest.finalize().into()
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::File { path: path.to_owned(), source };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(source) => Err(failed(source)),
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => Err(failed(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => Ok(text),
    }
}

/// A gauge holds what fits.
fn seconds(not_after: u64) -> i64 {
    i64::try_from(not_after).unwrap_or(i64::MAX)
}
