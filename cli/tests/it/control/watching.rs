//! Nodes that watch a cluster of replicas, and what they show.

use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::Value;

use super::cluster::Cluster;
use crate::running::Running;
use crate::wire::show;

/// Nodes of a cluster; killed when dropped.
pub(super) struct Nodes {
    /// Held for their lives.
    _processes: Vec<Running>,
    pub(super) urls: Vec<String>,
}

impl Nodes {
    /// Three nodes that follow the replicas.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let started = (1..=3).map(|number| {
            let directory = format!("n{number}");
            Running::node(
                &cluster.place,
                &["--data-dir", &directory],
                &[("HIVEOPS_CONTROL", &cluster.urls())],
            )
        });
        let (_processes, urls) = started.unzip();
        Self { _processes, urls }
    }

    /// Waits until each node shows what is wanted on a path, and gives what they show.
    pub(super) fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        let shown = self.urls.iter().map(|url| {
            let found = wait_for_some(what, PATIENCE, || {
                let shown = show(url, path);
                Ok(holds(&shown).then_some(shown))
            });
            found.unwrap_or_else(|error| panic!("{error}: {}", show(url, path)))
        });
        shown.collect()
    }
}
