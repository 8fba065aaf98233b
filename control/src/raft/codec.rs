//! Our encoding of what is stored: little-endian numbers, texts with their length before them. Pure.
//!
//! Each file has a version in its magic; within one, nothing here may change its meaning.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, EntryPayload, LeaderId};

use super::{Entry, LogId, Membership, Proposal, SnapshotMeta, StoredMembership, Vote};

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The bytes have a good checksum, but are none of ours.
#[derive(Debug, thiserror::Error)]
#[error("a stored {0} cannot be understood; was it written by a newer version?")]
pub(crate) struct Unreadable(&'static str);

pub(super) fn entry(entry: &Entry) -> Vec<u8> {
    let mut out = Out::default();
    out.log_id(&entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.byte(BLANK),
        EntryPayload::Normal(Proposal(text)) => {
            out.byte(NORMAL);
            out.text(text);
        }
        EntryPayload::Membership(membership) => {
            out.byte(MEMBERSHIP);
            out.membership(membership);
        }
    }
    out.0
}

pub(super) fn read_entry(bytes: &[u8]) -> Result<Entry, Unreadable> {
    let read = |input: &mut In<'_>| {
        let log_id = input.log_id()?;
        let payload = match input.byte()? {
            BLANK => EntryPayload::Blank,
            NORMAL => EntryPayload::Normal(Proposal(input.text()?)),
            MEMBERSHIP => EntryPayload::Membership(input.membership()?),
            _ => return None,
        };
        Some(Entry { log_id, payload })
    };
    whole(bytes, read).ok_or(Unreadable("entry"))
}

/// The length of a vote.
pub(super) const VOTE_BYTES: usize = 18;

pub(super) fn vote(vote: &Vote) -> Vec<u8> {
    let mut out = Out::default();
    out.number(vote.leader_id.term);
    out.byte(u8::from(vote.leader_id.voted_for.is_some()));
    out.number(vote.leader_id.voted_for.unwrap_or_default());
    out.byte(u8::from(vote.committed));
    out.0
}

pub(super) fn read_vote(bytes: &[u8]) -> Result<Vote, Unreadable> {
    let read = |input: &mut In<'_>| {
        let term = input.number()?;
        let voted = input.byte()? == 1;
        let voted_for = Some(input.number()?).filter(|_| voted);
        let leader_id = LeaderId { term, voted_for };
        Some(Vote { leader_id, committed: input.byte()? == 1 })
    };
    whole(bytes, read).ok_or(Unreadable("vote"))
}

pub(super) fn log_id(log_id: &LogId) -> Vec<u8> {
    let mut out = Out::default();
    out.log_id(log_id);
    out.0
}

pub(super) fn read_log_id(bytes: &[u8]) -> Result<LogId, Unreadable> {
    whole(bytes, |input| input.log_id()).ok_or(Unreadable("log id"))
}

pub(super) fn snapshot(meta: &SnapshotMeta, data: &[u8]) -> Vec<u8> {
    let mut out = Out::default();
    out.optional_log_id(meta.last_log_id.as_ref());
    out.optional_log_id(meta.last_membership.log_id().as_ref());
    out.membership(meta.last_membership.membership());
    out.text(&meta.snapshot_id);
    out.0.extend_from_slice(data);
    out.0
}

pub(super) fn read_snapshot(bytes: &[u8]) -> Result<(SnapshotMeta, Vec<u8>), Unreadable> {
    let mut input = In(bytes);
    let read = |input: &mut In<'_>| {
        let last_log_id = input.optional_log_id()?;
        let last_membership = StoredMembership::new(input.optional_log_id()?, input.membership()?);
        let snapshot_id = input.text()?;
        Some(SnapshotMeta { last_log_id, last_membership, snapshot_id })
    };
    let meta = read(&mut input).ok_or(Unreadable("snapshot"))?;
    Ok((meta, input.0.to_vec()))
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn log_id(&mut self, log_id: &LogId) {
        self.number(log_id.leader_id.term);
        self.number(log_id.index);
    }

    fn optional_log_id(&mut self, log_id: Option<&LogId>) {
        self.byte(u8::from(log_id.is_some()));
        if let Some(log_id) = log_id {
            self.log_id(log_id);
        }
    }

    fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.length(configs.len());
        for voters in configs {
            self.length(voters.len());
            voters.iter().for_each(|voter| self.number(*voter));
        }
        self.length(membership.nodes().count());
        for (id, node) in membership.nodes() {
            self.number(*id);
            self.text(&node.addr);
        }
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_at_checked(8)?;
        self.0 = rest;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn log_id(&mut self) -> Option<LogId> {
        // One replica leads in a term, so that the term alone names it.
        let leader_id = CommittedLeaderId::new(self.number()?, 0);
        Some(LogId { leader_id, index: self.number()? })
    }

    fn optional_log_id(&mut self) -> Option<Option<LogId>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.log_id().map(Some),
            _ => None,
        }
    }

    fn membership(&mut self) -> Option<Membership> {
        let mut configs = Vec::new();
        for _ in 0..self.number()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.number()? {
                voters.insert(self.number()?);
            }
            configs.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.number()? {
            nodes.insert(self.number()?, BasicNode { addr: self.text()? });
        }
        Some(Membership::new(configs, nodes))
    }
}

fn whole<T>(bytes: &[u8], read: impl FnOnce(&mut In<'_>) -> Option<T>) -> Option<T> {
    let mut input = In(bytes);
    read(&mut input).filter(|_| input.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, node: u64, index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId::new(term, node), index }
    }

    fn members() -> Membership {
        let nodes = [(1, "a:1"), (2, "b:2"), (3, "c:3")].map(|(id, addr)| (id, BasicNode::new(addr)));
        Membership::new(vec![[1, 2].into(), [2, 3].into()], BTreeMap::from(nodes))
    }

    #[test]
    fn everything_is_read_as_it_was_written() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal("{\"a\":\"ü\"}".to_owned())),
            EntryPayload::Membership(members()),
        ];
        for payload in payloads {
            let written = Entry { log_id: at(3, 2, 77), payload };
            let bytes = entry(&written);
            assert_eq!(read_entry(&bytes).unwrap(), written);
            for length in 0..bytes.len() {
                assert!(read_entry(&bytes[..length]).is_err());
            }
        }
        for written in [Vote::new(4, 3), Vote::new_committed(5, 1)] {
            assert_eq!(read_vote(&vote(&written)).unwrap(), written);
            assert_eq!(vote(&written).len(), VOTE_BYTES);
        }
        let last_membership = StoredMembership::new(Some(at(1, 1, 1)), members());
        let meta =
            SnapshotMeta { last_log_id: Some(at(2, 1, 9)), last_membership, snapshot_id: "2-9".to_owned() };
        assert_eq!(read_snapshot(&snapshot(&meta, b"data")).unwrap(), (meta, b"data".to_vec()));
    }
}
