//! A busy day without an attack makes next to no alerts.
//!
//! In: the corpus's benign day, the built-in detectors as `scan` runs them, sequences and counts included. Out: the alerts.
//! Invariant: at most 2 in the standard profile.
#![cfg(feature = "demo")]

use std::{fs, process::Command};

use trailwarden::demo::corpus::{Corpus, wrap};

/// In any build within seconds; more of them only repeat the same calls.
const EVENTS: u64 = 15_000;

#[test]
fn at_most_two_alerts() {
    let mut lines = Vec::new();
    wrap::ndjson(&mut Corpus::benign_day(6, EVENTS), EVENTS, &mut lines).expect("a vector takes all");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let day = folder.path().join("day.ndjson");
    fs::write(&day, &lines).expect("the folder can be written to");
    let scan = Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["scan", "--format", "json"]).arg(&day).output().expect("it starts");
    let told = String::from_utf8_lossy(&scan.stdout);
    assert_eq!(scan.status.code(), Some(0), "{}", String::from_utf8_lossy(&scan.stderr));
    assert!(told.lines().count() <= 2, "{told}");
}
