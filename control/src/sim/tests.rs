//! Seeds that must hold, and planted mistakes that must be found.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::*;

/// The seeds of every run of the tests.
const SEEDS: Range<u64> = 0..200;
/// `123`: this seed alone, with what happened last in it.
const SEED: &str = "HIVEOPS_SIM_SEED";
/// `1000..9000`: other seeds than those of every run.
const OTHER_SEEDS: &str = "HIVEOPS_SIM_SEEDS";
/// So many of the last events are shown when a seed fails; all of them when it runs alone.
const SHOWN: usize = 60;
/// Real time. A seed takes less than a second of it; one that goes round in a circle takes no simulated time.
const SEED_TAKES_MAX: Duration = Duration::from_secs(240);

#[expect(clippy::disallowed_methods, reason = "what a person says to a test is not a setting")]
fn said(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> Range<u64> {
    if let Some(seed) = said(SEED) {
        let seed = seed.parse().unwrap();
        return seed..seed + 1;
    }
    match said(OTHER_SEEDS) {
        Some(seeds) => {
            let (from, to) = seeds.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        None => SEEDS,
    }
}

/// Does jobs on all processors, and returns what came of them in their order.
fn on_all_processors<J: Send + Sync + 'static, T: Send + 'static>(
    jobs: Vec<J>,
    takes_max: Duration,
    job: impl Fn(&J) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let count = jobs.len();
    let (send, done) = sync_channel(count);
    let (jobs, job, next) = (Arc::new(jobs), Arc::new(job), Arc::new(AtomicUsize::new(0)));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for _ in 0..processors {
        let (jobs, job, next, send) = (Arc::clone(&jobs), Arc::clone(&job), Arc::clone(&next), send.clone());
        std::thread::spawn(move || {
            while let Some((at, this)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                jobs.get(at).map(|this| (at, this))
            } {
                let _ = send.send((at, job(this)));
            }
        });
    }
    drop(send);
    let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    for _ in 0..count {
        let Ok((at, result)) = done.recv_timeout(takes_max) else {
            let open = results.iter().position(Option::is_none).unwrap();
            panic!("number {open} of the jobs panicked or does not end: {}", again(open as u64));
        };
        results[at] = Some(result);
    }
    results.into_iter().flatten().collect()
}

/// How to run a seed alone.
fn again(seed: u64) -> String {
    format!(
        "{SEED}={seed} cargo test -p hiveops-control --lib -- sim::tests::every_seed_holds --exact --nocapture"
    )
}

#[test]
fn every_seed_holds() {
    let (seeds, began) = (seeds(), std::time::Instant::now());
    let is_alone = seeds.end - seeds.start == 1;
    let shown = if is_alone { usize::MAX } else { SHOWN };
    let runs =
        on_all_processors(seeds.clone().collect(), SEED_TAKES_MAX, move |seed| run(*seed, None, shown));
    let events: u64 = runs.iter().map(|run| run.fingerprint.0).sum();
    println!("seeds {seeds:?}: {events} events in {:.1} s", began.elapsed().as_secs_f64());
    if is_alone {
        println!("{}{:x?}", runs[0].last_events, runs[0].fingerprint);
    }
    let mut report = String::new();
    for Run { seed, broken, last_events, .. } in &runs {
        if let Some(Broken { rule, how }) = broken {
            let again = again(*seed);
            write!(report, "{last_events}\nseed {seed} broke {rule:?}: {how}\n  {again}\n\n").unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_seed_makes_the_same_history_again() {
    let seeds: Vec<u64> = SEEDS.step_by(10).flat_map(|seed| [seed, seed]).collect();
    let runs = on_all_processors(seeds, SEED_TAKES_MAX, |seed| run(*seed, None, 0));
    for pair in runs.chunks(2) {
        assert!(pair[0].fingerprint.0 > 500, "{:?}", pair[0]);
        assert_eq!(pair[0].fingerprint, pair[1].fingerprint, "seed {}", pair[0].seed);
    }
    assert_ne!(runs[0].fingerprint, runs[2].fingerprint);
}

#[test]
fn every_planted_mistake_is_found() {
    let takes_max = SEED_TAKES_MAX * 4;
    let found = on_all_processors(Planted::ALL.to_vec(), takes_max, |planted| {
        SEEDS.map(|seed| run(seed, Some(*planted), 0)).find(|run| run.broken.is_some())
    });
    let mut missed = Vec::new();
    for (planted, run) in Planted::ALL.iter().zip(found) {
        match run.and_then(|run| Some((run.seed, run.broken?))) {
            Some((seed, Broken { rule, how })) => {
                let how: String = how.chars().take(160).collect();
                println!(
                    "{planted:?}: found by seed {seed}, the {}. of {SEEDS:?}: {rule:?}: {how}",
                    seed + 1
                );
            }
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "{missed:?} were not found with {SEEDS:?}");
}
