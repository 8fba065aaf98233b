//! Real programs and real faults for tests: brokers that are started, killed and frozen, and whatever
//! else a cluster is put together from. Only tests and the chaos run depend on it.
//!
//! Everything listens on loopback alone, has a directory of its own, ends when it is dropped, and waits for
//! conditions with a deadline. Calls block: a test with a runtime of one thread must not wait in it for
//! something that the same runtime has to do. It knows nothing of HiveOps.

pub mod balancer;
pub mod broker;
pub mod certificates;
pub mod port;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod proxy;
mod random;
mod server;
pub mod wait;
