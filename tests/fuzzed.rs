//! Every case that a fuzzer ever found, replayed.
//!
//! In: `fuzz/found/<target>/*`. Out: a failure where one breaks a promise again. Invariant: the checks are the fuzzer's own.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(target);
    let mut cases: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    cases.sort();
    for case in &cases {
        println!("{}", case.display());
        check(&fs::read(case).unwrap());
    }
    println!("{target}: {} cases", cases.len());
}

#[test]
fn records() {
    replay("record", checks::record);
}

#[test]
fn events() {
    replay("event", checks::event);
}

#[test]
fn rules() {
    replay("rules", checks::rules);
}

#[test]
fn logs() {
    replay("logs", checks::logs);
}

/// The checks can fail: each of their rules matches something, and wrapped input is taken apart.
#[test]
fn checks_reach_the_engine() {
    let event = br#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser"},"eventTime":"2026-03-02T03:04:05Z","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","userAgent":"aws-cli"}"#;
    checks::event(event);
    for how in 0..4 {
        checks::record(&[&[how], event.as_slice()].concat());
    }
    for which in 0..5 {
        checks::logs(&[&[which], b"2026-03-02 03:04:05 UTC:10.0.0.9(5012):app@orders:[77]:LOG:  connection authorized\n20260302 03:04:05,h,app,10.0.0.9,5,6,QUERY,orders,'SELECT 1',0\n".as_slice()].concat());
    }
    checks::rules(b"title: x\nlogsource: {product: aws}\ndetection: {a: {eventName: DeleteDBInstance}, condition: a}\n");
}
