//! The contract of HiveOps: what clients, publishers, nodes and control replicas say to each other.
//!
//! Frames, envelopes, identifiers, limits, codes and paths live here, together with the checks that make
//! an ill-formed one impossible to hold. There is no IO, no clock, no randomness and no async: whoever
//! needs a time or an id passes it in. `schemas/ws_messages.schema.json` describes the same frames for the
//! rest of the world, and the tests of this crate prove the two equal.

#![warn(missing_docs)]

pub mod access;
pub mod auth;
pub mod board;
pub mod code;
pub mod contract;
pub mod control;
mod digest;
pub mod envelope;
pub mod frame;
pub mod http;
pub mod id;
pub mod lease;
pub mod limits;
pub mod path;
pub mod payload;
pub mod position;
pub mod subscription;
pub mod timestamp;

pub use code::{CloseCode, DisconnectReason, ErrorCode};
pub use contract::{Contract, ContractVersion, MessageKind};
pub use digest::{contract_digest, digest, schema_digest};
pub use envelope::Envelope;
pub use frame::{ClientFrame, ServerFrame};
pub use id::{ConnectionId, CorrelationId, Epoch, Key, NodeId};
pub use limits::Limits;
pub use payload::Payload;
pub use position::{Position, Positions};
pub use subscription::{MessageType, SubscriptionName, SubscriptionSet};
pub use timestamp::Timestamp;

/// The published JSON Schema of every frame, as this build serves it.
pub const WS_SCHEMA: &str = include_str!("../../schemas/ws_messages.schema.json");

/// The contract version that this build was written for, with its subscriptions and message types.
pub const CONTRACT: &str = include_str!("../../schemas/contract.json");
