//! openraft's own suite for storage, run on ours, and what it does not ask: restarts.

use futures_util::FutureExt as _;
use hiveops_proto::control::Revision;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::testing::{StoreBuilder, Suite, blank_ent, log_id};
use openraft::{EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _};
use tempfile::TempDir;

use super::counts::Counts;
use super::log_store::LogStore;
use super::machine_store::MachineStore;
use super::{Answer, Entry, Fault, Machine, Proposal, StorageError, Types, Unusable, Vote};

/// Remembers everything.
#[derive(Default)]
struct Memory(Vec<String>);

impl Machine for Memory {
    fn apply(&mut self, at: Revision, proposal: &str) -> Result<String, Unusable> {
        self.0.push(format!("{}:{proposal}", at.index));
        Ok(self.0.len().to_string())
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.join("\n").into_bytes()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Unusable> {
        let text = std::str::from_utf8(snapshot).map_err(|error| Unusable(error.to_string()))?;
        self.0 = text.lines().map(str::to_owned).collect();
        Ok(())
    }
}

fn open(place: &TempDir) -> (LogStore, MachineStore, Fault) {
    let fault = Fault::default();
    let log = LogStore::open(place.path(), &fault).unwrap();
    let machine = MachineStore::open(place.path(), Box::<Memory>::default(), &fault, &Counts::new()).unwrap();
    (log, machine, fault)
}

struct Builder;

impl StoreBuilder<Types, LogStore, MachineStore, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineStore), StorageError> {
        let place = tempfile::tempdir().unwrap();
        let (log, machine, _) = open(&place);
        Ok((place, log, machine))
    }
}

#[test]
fn the_librarys_own_suite_passes() {
    Suite::test_all(Builder).unwrap();
}

fn proposal(term: u64, index: u64, text: &str) -> Entry {
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(Proposal(text.to_owned())) }
}

#[tokio::test]
async fn log_vote_and_what_was_committed_survive_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(&place);
    assert!(log.is_pristine());
    let entries =
        [blank_ent::<Types>(1, 1, 0), proposal(1, 1, "a"), proposal(2, 2, "b"), proposal(2, 3, "c")];
    log.blocking_append(entries.clone()).await.unwrap();
    log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
    log.save_committed(Some(log_id(2, 1, 2))).await.unwrap();
    log.purge(log_id(1, 1, 0)).await.unwrap();
    log.truncate(log_id(2, 1, 3)).await.unwrap();
    drop(log);
    let (mut log, ..) = open(&place);
    assert!(!log.is_pristine());
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 1, 0)));
    assert_eq!(state.last_log_id, Some(log_id(2, 1, 2)));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[1..3]);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(2, 1)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 1, 2)));
}

#[tokio::test]
async fn who_led_before_a_restart_has_voted_for_itself_and_does_not_lead() {
    let place = tempfile::tempdir().unwrap();
    let (mut log, ..) = open(&place);
    log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
    for (own, vote) in [(2, Vote::new_committed(2, 1)), (1, Vote::new(2, 1))] {
        let (mut log, ..) = open(&place);
        log.step_back(own);
        assert_eq!(log.read_vote().await.unwrap(), Some(vote), "replica {own}");
    }
}

#[tokio::test]
async fn a_snapshot_survives_a_restart_and_an_older_one_does_not_replace_it() {
    let place = tempfile::tempdir().unwrap();
    let (_, mut machine, _) = open(&place);
    let answers = machine.apply([proposal(1, 0, "a"), blank_ent::<Types>(1, 1, 1)]).await.unwrap();
    assert_eq!(answers, [Answer(Some("1".to_owned())), Answer(None)]);
    let mut builder = machine.get_snapshot_builder().await;
    let old = builder.build_snapshot().await.unwrap();
    machine.apply([proposal(1, 2, "b")]).await.unwrap();
    let new = builder.build_snapshot().await.unwrap();
    machine.write(old.meta, *old.snapshot).await.unwrap();
    drop(machine);
    let (_, mut machine, _) = open(&place);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1, 2)));
    let found = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!((found.meta, found.snapshot.as_slice()), (new.meta, &b"0:a\n2:b"[..]));
}

#[tokio::test]
async fn entries_are_removed_only_when_the_snapshot_that_has_them_is_on_the_disk() {
    let place = tempfile::tempdir().unwrap();
    let (mut log, mut machine, fault) = open(&place);
    log.keep_what_is_not_in(machine.covered());
    log.blocking_append([proposal(1, 0, "a"), proposal(1, 1, "b")]).await.unwrap();
    machine.apply([proposal(1, 0, "a"), proposal(1, 1, "b")]).await.unwrap();
    assert!(log.purge(log_id(1, 1, 1)).now_or_never().is_none());
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, None);
    let (purged, built) = tokio::join!(log.purge(log_id(1, 1, 1)), machine.build_snapshot());
    purged.unwrap();
    built.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(1, 1, 1)));
    fault.tell(&"disk full");
    log.purge(log_id(1, 1, 2)).await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_stored_or_applied_is_a_fault_with_its_reason() {
    let place = tempfile::tempdir().unwrap();
    let (mut log, _, fault) = open(&place);
    log.blocking_append([proposal(1, 0, "a")]).await.unwrap();
    log.blocking_append([proposal(1, 5, "b")]).await.unwrap_err();
    assert_eq!(fault.get().unwrap(), "entry 5 was to follow, where 1 is next");
}
