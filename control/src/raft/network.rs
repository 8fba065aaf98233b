//! What replicas say to each other, over HTTP: the client's side of the library's network.
//!
//! Each message names the cluster, its sender and its receiver, so that a wrong address does no harm.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, ReplicationClosed,
    StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Snapshot};
use prometheus::IntCounter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::counts::Counts;
use super::{AnyError, Types, Vote, codec};
use crate::wire::{APPEND, Link, LostKind, SNAPSHOT, VOTE};

/// Before a replica that cannot be reached is tried again. Short, because who was killed comes back soon, and
/// a refused connection costs next to nothing.
const RETRY: Duration = Duration::from_millis(200);

/// Makes the connections to other replicas.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) link: Link,
    pub(super) counts: Counts,
}

/// The way to one replica.
pub(super) struct Peer {
    link: Link,
    counts: Counts,
    id: u64,
    address: String,
}

type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, id: u64, node: &BasicNode) -> Peer {
        let (link, counts) = (self.link.clone(), self.counts.clone());
        Peer { link, counts, id, address: node.addr.clone() }
    }
}

impl Peer {
    async fn call<A: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Result<A, Fatal<u64>>, CallError> {
        let called = self.send(path, body, timeout).await;
        called.inspect_err(|_| self.failures(path).inc())
    }

    fn failures(&self, path: &str) -> &IntCounter {
        match path {
            APPEND => &self.counts.append_failures,
            VOTE => &self.counts.vote_failures,
            _ => &self.counts.snapshot_failures,
        }
    }

    async fn send<A: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Result<A, Fatal<u64>>, CallError> {
        let sent = self.link.post(&self.address, self.id, path, Bytes::from(body), timeout).await;
        let (status, body) = sent.map_err(|error| {
            // Nobody is there: the library then waits, instead of trying again at once.
            match error.kind {
                LostKind::NoConnection => CallError::Unreachable(error.text),
                LostKind::Timeout | LostKind::Other => CallError::Lost(error.text),
            }
        })?;
        match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|error| CallError::Lost(error.to_string()))
            }
            StatusCode::PAYLOAD_TOO_LARGE => Err(CallError::TooLarge),
            status => {
                let text = String::from_utf8_lossy(&body).into_owned();
                let (replica, address) = (self.id, &self.address);
                tracing::warn!(replica, address, %status, answer = text, "another replica refused a message");
                Err(CallError::Unreachable(text))
            }
        }
    }

    async fn rpc<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RpcError> {
        let body = serde_json::to_vec(request).expect("a message has only text as keys");
        match self.call(path, body, option.hard_ttl()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fatal)) => Err(RPCError::RemoteError(RemoteError::new(self.id, RaftError::Fatal(fatal)))),
            Err(CallError::Unreachable(text)) => {
                Err(RPCError::Unreachable(Unreachable::new(&AnyError(text))))
            }
            Err(CallError::Lost(text)) => Err(RPCError::Network(NetworkError::new(&AnyError(text)))),
            Err(CallError::TooLarge) => Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(1))),
        }
    }
}

/// Why there is no answer.
enum CallError {
    Unreachable(String),
    Lost(String),
    TooLarge,
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        self.rpc(APPEND, &request, &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        self.rpc(VOTE, &request, &option).await
    }

    /// The whole snapshot in one message: the state is a few megabytes at most.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let mut body = codec::vote(&vote);
        body.extend(codec::snapshot(&snapshot.meta, &snapshot.snapshot));
        let called = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            called = self.call(SNAPSHOT, body, option.hard_ttl()) => called,
        };
        match called {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fatal)) => Err(StreamingError::RemoteError(RemoteError::new(self.id, fatal))),
            Err(CallError::Unreachable(text)) => {
                Err(StreamingError::Unreachable(Unreachable::new(&AnyError(text))))
            }
            Err(CallError::Lost(text)) => Err(StreamingError::Network(NetworkError::new(&AnyError(text)))),
            Err(CallError::TooLarge) => {
                let text = "the snapshot is larger than the other replica takes".to_owned();
                Err(StreamingError::Network(NetworkError::new(&AnyError(text))))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}
