//! The HTTP surface of a node.

pub(crate) mod agents;
pub(crate) mod body;
pub(crate) mod conditional;
pub(crate) mod correlation;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod testing;
