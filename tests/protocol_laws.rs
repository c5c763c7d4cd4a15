//! The laws that fuzzing looks for hold over mutated seeds.
//!
//! Method: every seed under `fuzz/seeds`, then thousands of seeded mutations of it (bits, bytes, cuts, splices with
//! another seed), each through its law. A failure prints its seed file and number; `WS_SEED=<number>` replays it.

#[path = "../fuzz/laws.rs"]
mod laws;

use std::{fs, panic, path::Path};

use fastrand::Rng;

const MUTATIONS: u64 = 3_000;

#[test]
fn the_laws_hold_for_every_seed_and_what_becomes_of_it() {
    let only: Option<u64> = std::env::var("WS_SEED").ok().map(|seed| seed.parse().expect("WS_SEED is a number"));
    for (name, law) in laws::ALL {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "no seeds for {name}");
        for (file, bytes) in &seeds {
            hold(law, bytes, file, None);
            for number in only.map_or(0..MUTATIONS, |only| only..only + 1) {
                let mut rng = Rng::with_seed(number);
                let other = &seeds[rng.usize(..seeds.len())].1;
                hold(law, &mutated(bytes, other, &mut rng), file, Some(number));
            }
        }
    }
}

fn hold(law: &fn(&[u8]), bytes: &[u8], file: &str, number: Option<u64>) {
    let held = panic::catch_unwind(|| law(bytes)).is_ok();
    assert!(held, "broken by {file}, WS_SEED={number:?}: {:?}", String::from_utf8_lossy(bytes));
}

fn seeds(law: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(law);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed")))
        .collect();
    seeds.sort();
    seeds
}

fn mutated(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let within = at.min(bytes.len().saturating_sub(1));
        match rng.u8(..7) {
            0 if !bytes.is_empty() => bytes[within] ^= 1 << rng.u8(..8),
            1 if !bytes.is_empty() => bytes[within] = rng.u8(..),
            2 if !bytes.is_empty() => drop(bytes.remove(within)),
            3 => bytes.insert(at, *rng.choice(b"\0\n\r \"\\{}[]:,%&=+\x7f\x80\xff").unwrap_or(&0)),
            4 => bytes.truncate(at),
            5 => {
                let end = (at + rng.usize(..20)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let tail = &other[rng.usize(..=other.len())..];
                bytes.truncate(at);
                bytes.extend_from_slice(tail);
            }
        }
    }
    bytes
}
