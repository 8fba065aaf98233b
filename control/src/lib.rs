//! The plane of record: the few slow facts that all nodes agree on.
//!
//! [`run`] is one replica of a cluster, over HTTP, as its [`Config`] says. A node that has no cluster has a
//! [`standalone`] plane inside its own process instead, which nothing else can reach. The binary starts
//! either. The crate knows no sockets of clients and no sessions.

#![warn(missing_docs)]

mod api;
mod auth;
mod chance;
mod clock;
pub mod config;
mod key_pair;
mod metrics;
mod raft;
mod replica;
#[cfg(test)]
mod sim;
pub mod standalone;
pub mod state;
mod storage;
mod wire;

use hiveops_proto::Contract;

pub use config::Config;
pub use replica::{Error, run, run_on};

/// The text of a contract: as it was published if it is the one of this build, so that digests agree.
fn document_of(contract: &Contract) -> String {
    match Contract::parse(hiveops_proto::CONTRACT) {
        Ok(built_in) if &built_in == contract => hiveops_proto::CONTRACT.to_owned(),
        _ => serde_json::to_string(contract).expect("a contract is plain data"),
    }
}
