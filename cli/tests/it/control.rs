//! The control plane as real processes: three replicas that are killed, cut off and misconfigured.

mod bad_input;
pub(crate) mod cluster;
mod kill;
mod leases;
mod members;
mod partition;
mod quorum;
