//! Password hashes: argon2id on the blocking pool, two at once, and only so many that wait. A check always
//! costs one hash, also when there is no such user, so that the time of an answer tells nobody who exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::password::Password;
use crate::state::Secret;
use crate::storage::blocking;

/// What OWASP recommends: 19 MiB, two passes, one lane; about 40 ms.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes at once: each has 19 MiB and a core, and the replica has other things to do.
const AT_ONCE: usize = 2;

/// Passwords that may wait for their turn: the last of them has it in less than a second on an ordinary core.
const WAITING_MAX: usize = 32;

/// What the password of nobody is compared with. It has the parameters of every other hash, and no known
/// password: its digest was not made by hashing one.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$aGl2ZW9wcy1uby1zdWNoLQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Bytes of a salt, which need only be different for each hash.
pub(crate) const SALT_BYTES: usize = 16;

/// So many wait that another one would wait too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked; try again in a moment")]
pub(crate) struct Busy;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotHashed {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("the password cannot be hashed: {0}")]
    Library(argon2::password_hash::Error),
}

/// Hashes passwords and compares them with hashes.
#[derive(Debug)]
pub(crate) struct Hashing {
    /// One for each hash that is made or waits for its turn.
    places: Arc<Semaphore>,
    /// One for each hash that is being made.
    turns: Arc<Semaphore>,
    /// How many comparisons were made; that is how tests tell that nobody is told apart.
    comparisons: Arc<AtomicU64>,
}

impl Hashing {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            comparisons: Arc::default(),
        }
    }

    /// The argon2id hash in its PHC form.
    pub(crate) async fn hash(&self, password: Password, salt: [u8; SALT_BYTES]) -> Result<Secret, NotHashed> {
        let made = self.work(move || {
            let made = argon2().hash_password_with_salt(password.reveal().as_bytes(), &salt);
            made.map(|hash| Secret::new(hash.to_string()))
        });
        made.await?.map_err(NotHashed::Library)
    }

    /// Whether the password belongs to the hash; with no hash it does not, and takes as long to say so.
    pub(crate) async fn matches(&self, password: Secret, hash: Option<Secret>) -> Result<bool, Busy> {
        let comparisons = Arc::clone(&self.comparisons);
        self.work(move || {
            comparisons.fetch_add(1, Ordering::Relaxed);
            compare(&password, hash.as_ref())
        })
        .await
    }

    /// Waits for a turn, if there is a place to wait, and does the work. It keeps both until it is done, also
    /// when nobody waits for its result any more.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        // Cancel-safe: a place that nobody needs any more is free again. Nobody closes it.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Busy)?;
        let done = blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        // The runtime refuses work when it ends.
        done.await.map_err(|_| Busy)
    }

    #[cfg(test)]
    pub(crate) fn comparisons(&self) -> u64 {
        self.comparisons.load(Ordering::Relaxed)
    }
}

fn compare(password: &Secret, hash: Option<&Secret>) -> bool {
    let parsed = hash.and_then(|hash| PasswordHash::new(hash.reveal()).ok());
    let (is_somebodys, hash) = match parsed {
        Some(hash) => (true, hash),
        None => (false, PasswordHash::new(NOBODYS).expect("a test shows that it can be read")),
    };
    argon2().verify_password(password.reveal().as_bytes(), &hash).is_ok() && is_somebodys
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("a test shows that they are good");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    fn password() -> Password {
        Password::new("correct horse").unwrap()
    }

    #[tokio::test]
    async fn a_hash_has_the_parameters_and_belongs_to_its_password_alone() {
        let hashing = Hashing::new();
        let hash = hashing.hash(password(), [7; SALT_BYTES]).await.unwrap();
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.reveal());
        let other = hashing.hash(password(), [8; SALT_BYTES]).await.unwrap();
        assert_ne!(hash.reveal(), other.reveal());
        let is = |text: &str| hashing.matches(Secret::new(text), Some(hash.clone()));
        assert!(is("correct horse").await.unwrap());
        assert!(!is("correct Horse").await.unwrap() && !is("").await.unwrap());
    }

    #[tokio::test]
    async fn nobodys_password_and_a_broken_hash_cost_a_comparison_as_well() {
        let hashing = Hashing::new();
        for (count, hash) in [None, Some("$argon2id$nonsense"), Some("")].into_iter().enumerate() {
            let matches = hashing.matches(Secret::new("correct horse"), hash.map(Secret::new)).await;
            assert_eq!((matches, hashing.comparisons()), (Ok(false), count as u64 + 1));
        }
    }

    #[test]
    fn the_hash_of_nobody_costs_what_every_other_costs() {
        let nobodys = PasswordHash::new(NOBODYS).unwrap();
        let ours = argon2().hash_password_with_salt(b"correct horse", &[7; SALT_BYTES]).unwrap();
        assert_eq!((nobodys.algorithm, nobodys.version), (ours.algorithm, ours.version));
        assert_eq!(nobodys.params, ours.params);
        let bytes = |hash: &PasswordHash| {
            (hash.salt.as_ref().map(|salt| salt.len()), hash.hash.as_ref().map(|hash| hash.len()))
        };
        assert_eq!(bytes(&nobodys), bytes(&ours));
    }

    #[tokio::test]
    async fn two_at_once_so_many_in_line_and_the_next_is_told_that_it_is_busy() {
        let hashing = Hashing::new();
        let (began, beginning) = sync_channel(AT_ONCE + WAITING_MAX);
        let (go, gate) = sync_channel::<()>(0);
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut works: FuturesUnordered<_> = (0..AT_ONCE + WAITING_MAX)
            .map(|number| {
                let (began, gate) = (began.clone(), Arc::clone(&gate));
                hashing.work(move || {
                    began.send(number).unwrap();
                    // An error means that everybody may go on.
                    let _ = gate.lock().unwrap().recv();
                })
            })
            .collect();
        // Each is polled once: two have their turn, the others wait.
        assert!(futures_util::poll!(works.next()).is_pending());
        assert_eq!(hashing.turns.available_permits(), 0);
        assert_eq!(hashing.work(|| ()).await, Err(Busy));
        drop(go);
        let mut done = 0;
        while works.next().await.is_some() {
            done += 1;
        }
        assert_eq!((done, beginning.try_iter().count()), (AT_ONCE + WAITING_MAX, AT_ONCE + WAITING_MAX));
        assert_eq!(hashing.work(|| 5).await, Ok(5));
    }

    #[tokio::test]
    async fn a_place_in_line_is_free_again_when_nobody_waits_any_more() {
        let hashing = Hashing::new();
        let held = Arc::clone(&hashing.turns).acquire_many_owned(AT_ONCE as u32).await.unwrap();
        {
            let mut waiting = std::pin::pin!(hashing.work(|| ()));
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
            assert_eq!(hashing.places.available_permits(), AT_ONCE + WAITING_MAX - 1);
        }
        assert_eq!(hashing.places.available_permits(), AT_ONCE + WAITING_MAX);
        drop(held);
        assert_eq!(hashing.work(|| ()).await, Ok(()));
    }
}
