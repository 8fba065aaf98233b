//! The real binary: what it says and how it exits, alone and as a running node.

// The attributes tell clippy that the helpers are part of tests, where unwrapping is fine.
#[cfg(test)]
mod audit;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod cluster_limits;
#[cfg(test)]
mod config;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod control;
#[cfg(test)]
mod control_nodes;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod dev_cluster;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod node;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod running;
#[cfg(test)]
mod slo;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod users;
#[cfg(test)]
mod whole;
#[cfg(test)]
mod wire;
