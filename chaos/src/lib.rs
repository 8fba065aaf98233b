//! Chaos runs: real nodes, a real broker and a real balancer, which are killed, frozen and cut off by a plan
//! while publishers publish and clients watch; what everybody saw is recorded and checked afterwards.
//!
//! `hiveops-chaos` and the tests of `cli` call the scenarios. A run fails when an invariant is broken, and
//! also when the faults or the load that it is about did not really happen. Nothing here knows a node from
//! inside: the binary is given by its path.

pub mod ask;
pub mod broker;
pub mod check;
pub mod cluster;
pub mod crew;
mod files;
pub mod history;
pub mod load;
pub mod lookout;
pub mod network;
pub mod pace;
pub mod plan;
mod racers;
pub mod report;
pub mod scenario;
mod sync;
pub mod watchers;
