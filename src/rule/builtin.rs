//! The detectors that are compiled into the binary.
//!
//! In: `detectors/` at build time. Out: names (`builtin/backup/x.yml`) and texts, sorted. Invariant: case files are told by name.

include!(concat!(env!("OUT_DIR"), "/detectors.rs"));

/// The ending of a detector's test cases, which lie beside it.
pub const CASES: &str = ".cases.yml";

/// The detectors, without their cases.
pub fn detectors() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied().filter(|(name, _)| !name.ends_with(CASES))
}
