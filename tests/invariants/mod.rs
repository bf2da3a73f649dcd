//! The invariants of docs/semantics.md, checked after every step of a simulated
//! world: the real engine, vendors with faults, a disk that forgets what was not
//! flushed, virtual time. One seed decides everything.
//!
//! `PUSHYARD_SEED=7 cargo test invariants` repeats one world,
//! `PUSHYARD_STEPS=20000` makes each longer, `PUSHYARD_SEEDS=1000` runs so many,
//! and `PUSHYARD_LOG=100000` shows more than the last lines of a failure.

mod books;
mod disk;
mod health;
mod sight;
mod traffic;
mod vendor;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use world::World;

/// Worlds of a normal run: together some seconds.
const SEEDS: u64 = 60;
/// Steps in chaos of each.
const STEPS: u64 = 2_000;

#[test]
fn invariants_hold_in_every_world() {
    let steps = number("PUSHYARD_STEPS").unwrap_or(STEPS);
    let seeds = match number("PUSHYARD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PUSHYARD_SEEDS").unwrap_or(SEEDS),
    };
    let current = watchdog();
    let (mut events, mut crashes, mut cuts, mut last_tries) = (0, 0, 0, 0);
    for seed in seeds {
        current.store(seed, Ordering::Relaxed);
        let world = run(seed, steps);
        events += world.events;
        crashes += world.crashes;
        cuts += world.cuts;
        last_tries += world.sight.last_tries;
    }
    eprintln!(
        "{events} events, {crashes} crashes, {cuts} calls cut in silence, {last_tries} last tries"
    );
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs one world; a failure shows its seed and its last steps.
fn run(seed: u64, steps: u64) -> World {
    let mut world = World::new(seed);
    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| world.run(steps))) {
        for line in &world.log {
            eprintln!("{line}");
        }
        eprintln!("PUSHYARD_SEED={seed} PUSHYARD_STEPS={steps}");
        resume_unwind(failure);
    }
    world
}

/// A loop without end in the engine cannot be caught; it is at least named.
fn watchdog() -> Arc<AtomicU64> {
    let current = Arc::new(AtomicU64::new(0));
    let watched = Arc::downgrade(&current);
    std::thread::spawn(move || {
        let (mut seen, mut rounds) = (u64::MAX, 0);
        while let Some(current) = watched.upgrade() {
            let seed = current.load(Ordering::Relaxed);
            rounds = if seed == seen { rounds + 1 } else { 0 };
            seen = seed;
            if rounds == 600 {
                eprintln!("PUSHYARD_SEED={seed} does not end");
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    current
}
