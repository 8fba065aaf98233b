//! The subcommands: each file has its `Args` and its `run`.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod contract;
pub(crate) mod control;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod drain;
pub(crate) mod healthcheck;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod node;
pub(crate) mod publish;
pub(crate) mod slo;
pub(crate) mod status;
pub(crate) mod tied;
pub(crate) mod trace;
pub(crate) mod users;
pub(crate) mod watch;
