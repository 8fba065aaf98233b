//! The file: what it keeps, what it refuses, and what follows when it cannot be written.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use redb::StorageBackend;
use tokio::sync::mpsc;

use super::*;
use crate::bus::conformance::{names, occurrence, removal, update, with_key};
use crate::bus::embedded::ledger::Taken;
use crate::bus::embedded::{Command, EmbeddedBus};
use crate::bus::{Bus, BusEvent, Follow, PublishError, Reset};
use crate::telemetry::Chain;
use crate::time::Clock;

fn open_names(dir: &Path, names: &[SubscriptionName], first_epoch: u64) -> Result<EmbeddedBus, StoreError> {
    let mut next = first_epoch;
    let new_epoch = move || {
        next += 1;
        Epoch::from_bits(next - 1)
    };
    EmbeddedBus::open(names, Some(dir), Clock::start(), new_epoch)
}

fn open(dir: &Path, first_epoch: u64) -> Result<EmbeddedBus, StoreError> {
    open_names(dir, &names(), first_epoch)
}

/// Text of why `dir` cannot be opened.
fn refusal(dir: &Path) -> String {
    Chain(&open(dir, 1).err().expect("the store is refused")).to_string()
}

async fn resets(bus: &dyn Bus, count: usize) -> (Box<dyn Follow>, Vec<Reset>) {
    let mut follow = bus.follow().await.unwrap();
    let mut resets = Vec::new();
    while resets.len() < count {
        match follow.next().await.unwrap() {
            BusEvent::Reset(reset) => resets.push(reset),
            other => panic!("expected a reset, got {other:?}"),
        }
    }
    (follow, resets)
}

/// What can be compared of a reset.
fn content(reset: &Reset) -> (String, u64, u64, Vec<Stored>) {
    let entries = reset.entries.iter().map(|stored| stored.as_ref().clone()).collect();
    (reset.epoch.to_string(), reset.head, reset.floor, entries)
}

async fn fill(bus: &dyn Bus) {
    for publication in [
        with_key("k1", update(0, "a", 1)),
        occurrence(0, 2),
        update(0, "a", 3),
        update(0, "b", 4),
        removal(0, "b"),
        update(1, "a", 6),
    ] {
        bus.publish(publication).await.unwrap();
    }
}

#[tokio::test]
async fn an_opened_store_continues_where_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1).unwrap();
    fill(&bus).await;
    let (_, before) = resets(&bus, 2).await;
    drop(bus);
    let bus = open(dir.path(), 100).unwrap();
    let (_, after) = resets(&bus, 2).await;
    assert_eq!(before.iter().map(content).collect::<Vec<_>>(), after.iter().map(content).collect::<Vec<_>>());
    let repeat = bus.publish(with_key("k1", update(0, "a", 1))).await.unwrap();
    assert_eq!((repeat.seq, repeat.duplicate), (1, true));
    let conflict = bus.publish(with_key("k1", update(0, "a", 9))).await;
    assert_eq!(conflict, Err(PublishError::IdempotencyConflict { seq: 1 }));
    let next = bus.publish(update(0, "a", 7)).await.unwrap();
    assert_eq!((next.seq, next.epoch), (6, before[0].epoch.clone()));
}

#[tokio::test]
async fn what_was_compacted_away_is_not_kept_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1).unwrap();
    for n in 0..20 {
        bus.publish(if n % 2 == 0 { update(0, "a", n) } else { update(0, "b", n) }).await.unwrap();
    }
    drop(bus);
    let (store, _) = Store::open(dir.path(), &names(), || Epoch::from_bits(9)).unwrap();
    let transaction = store.database().unwrap().begin_read().unwrap();
    let entries = transaction.open_table(ENTRIES).unwrap();
    assert_eq!(entries.iter().unwrap().count(), 2);
}

#[tokio::test]
async fn a_subscription_that_comes_later_gets_a_log_and_the_others_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1).unwrap();
    fill(&bus).await;
    let (_, before) = resets(&bus, 2).await;
    drop(bus);
    // Sorted between the two, so that the ids of the others change.
    let mut more = names();
    more.insert(1, SubscriptionName::new("alerts").unwrap());
    let bus = open_names(dir.path(), &more, 100).unwrap();
    let (_, after) = resets(&bus, 3).await;
    let places: Vec<_> =
        after.iter().map(|reset| (reset.sub.index(), reset.epoch.clone(), reset.head)).collect();
    assert_eq!(places[0], (0, before[0].epoch.clone(), before[0].head));
    assert_eq!(places[1], (1, Epoch::from_bits(100), 0));
    assert_eq!(places[2], (2, before[1].epoch.clone(), before[1].head));
    assert!(after[2].entries.iter().all(|stored| stored.sub.index() == 2));
}

#[tokio::test]
async fn a_second_opener_of_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1).unwrap();
    let refusal = refusal(dir.path());
    assert!(refusal.contains("in use by another hiveops (HIVEOPS_DATA_DIR)"), "{refusal}");
    assert!(refusal.contains("bus.redb"), "{refusal}");
    drop(bus);
    open(dir.path(), 1).unwrap();
}

#[test]
fn what_is_no_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let refusal = refusal(&file);
    assert!(refusal.contains("cannot create the data directory") && refusal.contains("HIVEOPS_DATA_DIR"));
}

#[tokio::test]
async fn a_damaged_file_is_refused_by_name_or_holds_what_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path(), 1).unwrap();
    fill(&bus).await;
    let (_, whole) = resets(&bus, 2).await;
    let whole: Vec<_> = whole.iter().map(content).collect();
    drop(bus);
    let path = dir.path().join(FILE);
    let good = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], what: String| {
        std::fs::write(&path, bytes).unwrap();
        match Store::open(dir.path(), &names(), || Epoch::from_bits(100)) {
            Ok((_, ledgers)) => {
                let logs = ledgers.iter().zip(&whole).all(|(ledger, whole)| {
                    let entries: Vec<_> =
                        ledger.log.entries().map(|stored| stored.as_ref().clone()).collect();
                    (ledger.log.epoch().as_str(), ledger.log.head(), entries)
                        == (&*whole.0, whole.1, whole.3.clone())
                });
                assert!(logs, "{what} went unseen");
                false
            }
            Err(error) => {
                let error = Chain(&error).to_string();
                assert!(error.contains("bus.redb") && error.contains("HIVEOPS_DATA_DIR"), "{what}: {error}");
                true
            }
        }
    };
    assert!(check(b"this was never a database", "other content".to_owned()));
    for length in [1, 100, 4_096, good.len() / 2, good.len() - 4_096] {
        assert!(check(&good[..length], format!("cut to {length} bytes")));
    }
    let mut refused = 0;
    // Whatever page they fall into; a prime, so that they fall everywhere within their pages.
    for at in (0..good.len()).step_by(4_999).filter(|at| good[*at] != 0) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        refused += usize::from(check(&bad, format!("byte {at} changed")));
    }
    // The data itself.
    let text = br#""id":"a","n":3"#;
    let found: Vec<usize> = (0..good.len() - text.len()).filter(|at| good[*at..].starts_with(text)).collect();
    assert!(!found.is_empty());
    let mut bad = good.clone();
    for at in found {
        bad[at + 6] = b'z';
    }
    assert!(check(&bad, "the data changed".to_owned()), "and {refused} others were");
}

#[tokio::test]
async fn a_record_that_is_not_ours_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 1).unwrap());
    let database = Database::create(dir.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap().insert(("tasks", 1), &b"{}"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refusal = refusal(dir.path());
    assert!(refusal.contains("bus.redb") && refusal.contains("entry 1 of log `tasks`"), "{refusal}");
}

/// A disk that does so many more writes and syncs, and then fails until it is opened anew.
#[derive(Debug)]
struct Disk {
    inner: redb::backends::FileBackend,
    good_for: Arc<AtomicUsize>,
}

/// More than any test does.
const HEALTHY: usize = usize::MAX;

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        let left = self.good_for.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| match left {
            HEALTHY => Some(HEALTHY),
            left => left.checked_sub(1),
        });
        left.map(|_| ()).map_err(|_| std::io::Error::other("no space left"))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.inner.write(offset, data)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.inner.close()
    }
}

/// A bus on such a disk, which may also be impossible to open.
struct Failing {
    bus: EmbeddedBus,
    good_for: Arc<AtomicUsize>,
    away: Arc<AtomicBool>,
    _dir: tempfile::TempDir,
}

impl Failing {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (good_for, away) = (Arc::new(AtomicUsize::new(HEALTHY)), Arc::new(AtomicBool::new(false)));
        let (file, good, gone) = (path.clone(), Arc::clone(&good_for), Arc::clone(&away));
        let opener = Box::new(move || {
            if gone.load(Ordering::Acquire) {
                return Err(std::io::Error::other("no such disk").into());
            }
            let file =
                std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&file)?;
            good.store(HEALTHY, Ordering::Release);
            let disk = Disk { inner: redb::backends::FileBackend::new(file)?, good_for: Arc::clone(&good) };
            Database::builder().set_check_integrity_on_open(true).create_with_backend(disk)
        });
        let mut next = 0;
        let new_epoch = || {
            next += 1;
            Epoch::from_bits(next)
        };
        let (store, ledgers) = Store::open_with(path, opener, &names(), new_epoch).unwrap();
        let bus =
            EmbeddedBus::start(ledgers, Some(store), Clock::start(), Box::new(super::super::tests::epochs()))
                .unwrap();
        Self { bus, good_for, away, _dir: dir }
    }

    async fn hold(&self) -> SyncSender<()> {
        let commands: mpsc::Sender<Command> = self.bus.commands.clone();
        EmbeddedBus::hold(commands).await
    }

    async fn seq(&self, publish: crate::bus::Publish) -> u64 {
        self.bus.publish(publish).await.unwrap().seq
    }
}

async fn next_seq(follow: &mut dyn Follow) -> u64 {
    match follow.next().await.unwrap() {
        BusEvent::Stored(stored) => stored.seq,
        other => panic!("expected a publication, got {other:?}"),
    }
}

#[tokio::test]
async fn what_the_store_refused_is_not_remembered_and_told_to_nobody() {
    let failing = Failing::start();
    let (mut follow, _) = resets(&failing.bus, 2).await;
    assert_eq!(failing.seq(update(0, "a", 1)).await, 1);
    let held = failing.hold().await;
    failing.good_for.store(0, Ordering::Release);
    // One batch: the second and the third are decided by what the first would have stored.
    let first = failing.bus.publish(with_key("k1", update(0, "b", 2)));
    let repeat = failing.bus.publish(with_key("k1", update(0, "b", 2)));
    let conflict = failing.bus.publish(with_key("k1", update(0, "b", 3)));
    let release = async { drop(held) };
    let (first, repeat, conflict, ()) = tokio::join!(first, repeat, conflict, release);
    for answer in [first, repeat, conflict] {
        assert!(matches!(answer, Err(PublishError::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(next_seq(follow.as_mut()).await, 1);
    // The store is open again; the place that was not taken is the next one, for other data too.
    let ack = failing.bus.publish(with_key("k1", update(0, "b", 4))).await.unwrap();
    assert_eq!((ack.seq, ack.duplicate), (2, false));
    assert_eq!(next_seq(follow.as_mut()).await, 2);
}

#[tokio::test]
async fn a_store_that_stays_away_refuses_until_it_is_back() {
    let failing = Failing::start();
    let (mut follow, _) = resets(&failing.bus, 2).await;
    assert_eq!(failing.seq(update(0, "a", 1)).await, 1);
    failing.away.store(true, Ordering::Release);
    failing.good_for.store(0, Ordering::Release);
    let refused = async |n| {
        let answer = failing.bus.publish(with_key("k1", update(0, "a", n))).await;
        assert!(matches!(answer, Err(PublishError::Unavailable(_))), "{answer:?}");
    };
    refused(2).await;
    refused(3).await;
    // Neither a probe nor a new follower is answered by a bus that knows not what it holds.
    failing.bus.probe(7).await.unwrap();
    let joining = resets(&failing.bus, 2);
    let back = async {
        // Behind the probe and the request to join, on the same queue.
        refused(4).await;
        failing.away.store(false, Ordering::Release);
        failing.seq(with_key("k1", update(0, "a", 9))).await
    };
    let ((_, joined), seq) = tokio::join!(joining, back);
    assert_eq!((seq, joined[0].head), (2, 1));
    assert_eq!((next_seq(follow.as_mut()).await, next_seq(follow.as_mut()).await), (1, 2));
}

#[tokio::test]
async fn whichever_step_of_a_write_fails_each_publication_is_stored_once() {
    let failing = Failing::start();
    let (mut follow, _) = resets(&failing.bus, 2).await;
    let (mut unstored, mut found) = (0, 0);
    for step in 0.. {
        let publish = || with_key(&format!("k{step}"), occurrence(0, step));
        failing.good_for.store(step, Ordering::Release);
        let answer = failing.bus.publish(publish()).await;
        let again = failing.bus.publish(publish()).await.unwrap();
        let seq = step as u64 + 1;
        assert_eq!((again.seq, next_seq(follow.as_mut()).await), (seq, seq), "step {step}");
        match answer {
            Ok(_) if failing.good_for.load(Ordering::Acquire) < HEALTHY => break,
            Err(PublishError::Unavailable(_)) if again.duplicate => found += 1,
            Err(PublishError::Unavailable(_)) => unstored += 1,
            other => panic!("step {step}: {other:?}"),
        }
    }
    // A sync that fails after everything was written leaves it in the file all the same.
    assert!(unstored > 0 && found > 0, "{unstored} were not stored, {found} were");
}

#[test]
fn of_what_came_and_went_in_one_batch_the_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), &names(), || Epoch::from_bits(1)).unwrap();
    let (store, mut ledgers) = open();
    let now = Clock::start().timestamp();
    let later = now.plus_millis(120_001);
    let mut change = Change::new(ledgers[0].sub);
    for now in [now, later] {
        change.forget(ledgers[0].forget_old(now));
        let Taken::New(accepted) = ledgers[0].take(with_key("k1", update(0, "a", 1)), now).unwrap() else {
            panic!("nothing is repeated");
        };
        change.add(&accepted.stored, accepted.repeat);
        change.remove(accepted.replaced);
    }
    change.head = 2;
    store.commit(&[change]).unwrap();
    drop(store);
    let (_, mut ledgers) = open();
    assert_eq!(ledgers[0].log.entries().map(|stored| stored.seq).collect::<Vec<_>>(), [2]);
    let repeat = ledgers[0].take(with_key("k1", update(0, "a", 1)), later).unwrap();
    assert!(matches!(repeat, Taken::Repeat(ack) if ack.seq == 2));
}
