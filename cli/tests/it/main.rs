//! The real binary: what it says and how it exits, alone and as a running node.

mod config;
mod demo;
// The attribute tells clippy that the helpers are part of tests, where unwrapping is fine.
#[cfg(test)]
mod harness;
#[cfg(test)]
mod tidy;
mod kill;
mod logs;
mod node;
#[cfg(test)]
mod running;
mod tools;
#[cfg(test)]
mod wire;
