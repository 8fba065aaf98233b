//! The real binary, without a running node: what it says and how it exits.

mod config;
mod harness;
mod tools;
