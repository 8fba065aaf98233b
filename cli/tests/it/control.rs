//! The control plane as real processes: three replicas that are killed, cut off and misconfigured.

mod bad_input;
pub(crate) mod cluster;
mod contract;
pub(crate) mod keys;
mod kill;
mod leases;
mod members;
pub(crate) mod metrics;
mod partition;
mod quorum;
mod watching;
