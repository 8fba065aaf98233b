//! Seeds that must hold, and planted mistakes that must be found.

use super::*;

#[test]
fn trial() {
    let began = std::time::Instant::now();
    let from: u64 = std::env::var("HIVEOPS_SIM_SEED").map_or(0, |seed| seed.parse().unwrap());
    let to: u64 = std::env::var("HIVEOPS_SIM_TO").map_or(from + 1, |seed| seed.parse().unwrap());
    for seed in from..to {
        let run = run(seed, None);
        println!("{seed}: {:?} {:?} {:?}", run.fingerprint, run.broken, began.elapsed());
        if run.broken.is_some() || std::env::var("HIVEOPS_SIM_SHOW").is_ok() {
            println!("{}", run.last_events);
        }
    }
}
