//! A busy day without an attack makes next to no alerts.
//!
//! In: the corpus's benign day, the built-in detectors. Out: a count by rule. Invariant: at most 2 alerts in the standard profile.
#![cfg(feature = "demo")]

#[path = "support/rules.rs"]
mod rules;

use std::{collections::BTreeMap, path::Path};

use trailwarden::{
    decode::{Decoder, Item},
    demo::corpus::{Corpus, wrap},
    detect::{Engine, Scratch},
    rule::ast::Profile,
};

/// In any build within seconds; more of them only repeat the same calls.
const EVENTS: u64 = 15_000;

#[test]
fn at_most_two_alerts() {
    let detectors = rules::parse_all(&rules::texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("detectors")));
    let set: Vec<_> = detectors.into_iter().filter(|rule| rule.meta.ext.profile <= Profile::Standard && rule.meta.ext.state.is_none()).collect();
    let engine = Engine::new(&set).expect("the detectors compile");
    let mut lines = Vec::new();
    wrap::ndjson(&mut Corpus::benign_day(6, EVENTS), EVENTS, &mut lines).expect("a vector takes all");
    let (mut decoder, mut scratch, mut alerts) = (Decoder::default(), Scratch::default(), BTreeMap::<&str, (usize, String)>::new());
    decoder.record(&lines, &mut |item| {
        let Item::Event(event) = item else { panic!("the corpus has events only") };
        engine.judge(&event, &mut scratch, |found| {
            let entry = alerts.entry(&set[found.rule].meta.title.value).or_insert_with(|| (0, String::from_utf8_lossy(found.text).into_owned()));
            entry.0 += 1;
        });
    });
    let told: Vec<String> = alerts.iter().map(|(rule, (count, first))| format!("{count} x {rule}, first on {first}")).collect();
    assert!(alerts.values().map(|(count, _)| count).sum::<usize>() <= 2, "{}", told.join("\n"));
}
