//! The real binary, without a running node: what it says and how it exits.

mod config;
// The attribute tells clippy that the helpers are part of tests, where unwrapping is fine.
#[cfg(test)]
mod harness;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod tidy;
mod tools;
