//! Limits that somebody set for this node, and that the control plane has decided otherwise.

use std::fmt;

use hiveops_node::Config;
use hiveops_proto::Limits;
use hiveops_proto::control::{ControlView, Source};

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overridden {
    pub(crate) name: &'static str,
    pub(crate) given: u64,
    pub(crate) source: Source,
    pub(crate) in_force: u64,
}

/// What of a node's own configuration the view overrides.
pub(crate) fn overridden(config: &Config, view: &ControlView) -> Vec<Overridden> {
    let rows = Limits::TABLE.iter().filter_map(|spec| {
        let source = config.limit_sources.get(spec.name).copied().unwrap_or(Source::Default);
        let (given, in_force) = (config.limits.get(spec.name)?, view.limits.get(spec.name)?);
        let differs = source != Source::Default && given != in_force;
        differs.then_some(Overridden { name: spec.name, given, source, in_force })
    });
    rows.collect()
}

impl fmt::Display for Overridden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, given, source, in_force } = self;
        write!(f, "{name}={given} ({source}) does not count: the control plane says {in_force}")
    }
}
