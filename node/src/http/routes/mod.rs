//! The routes that show and steer the node itself, one per file.

pub(super) mod audit;
pub(super) mod broadcast;
pub(super) mod contract;
pub(super) mod disconnect;
pub(super) mod documents;
pub(super) mod drain;
pub(super) mod health;
pub(super) mod jwks;
pub(super) mod limits;
pub(super) mod metrics;
pub(super) mod stats;
pub(super) mod tail;
pub(super) mod telemetry;
pub(super) mod trace;
