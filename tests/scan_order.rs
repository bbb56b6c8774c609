//! `scan` tells the same of the same files, whatever order they are named in and whatever they are called.
//!
//! In: a day of events in many files, rules of every kind of correlation. Out: the lines of `--format json`, as a set. Invariant: the
//! orders tried include those that read the day backwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILES: usize = 16;
const EVENTS: usize = 40;

const RULES: &str = "
title: login
name: login
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: ConsoleLogin}, condition: s}
---
title: read
name: read
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: GetSecretValue}, condition: s}
---
title: many
name: many
level: high
correlation: {type: event_count, rules: [login], group-by: [userIdentity.arn], timespan: 30m, condition: {gte: 4}}
---
title: few
level: low
correlation: {type: event_count, rules: [login], group-by: [userIdentity.arn], timespan: 10m, condition: {lt: 2}}
---
title: values
level: high
correlation: {type: value_count, rules: [read], group-by: [userIdentity.arn], timespan: 1h, condition: {field: requestParameters.secretId, gte: 5}}
---
title: percentile
level: low
correlation: {type: value_percentile, rules: [read], timespan: 1h, condition: {field: requestParameters.size, percentile: 90, gte: 90}}
---
title: order
level: critical
correlation: {type: temporal_ordered, rules: [many, read], group-by: [userIdentity.arn], timespan: 1h}
---
title: never seen
level: medium
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: GetSecretValue}, condition: s}
trailwarden: {state: {type: new_value, fields: [requestParameters.secretId], group-by: [userIdentity.arn], memory: 30d, learning: 2h}}
---
title: lowered
level: medium
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: GetSecretValue}, condition: s}
trailwarden: {state: {type: value_drop, field: requestParameters.size, group-by: [userIdentity.arn], timespan: 1h}}
---
title: silent
level: high
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: ConsoleLogin}, condition: s}
trailwarden: {state: {type: absence, group-by: [userIdentity.arn], timespan: 40m}}
";

/// A small generator of its own, so that the day is the same on every machine.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// File `n` holds a stretch of the day, with some events of its neighbours' and some again.
fn write_day(folder: &Path) -> Vec<PathBuf> {
    let mut seed = 7;
    let mut texts = vec![String::new(); FILES];
    for n in 0..FILES * EVENTS {
        let second = n * 86_400 / (FILES * EVENTS);
        let (name, user, secret, size) = (next(&mut seed) % 2, next(&mut seed) % 3, next(&mut seed) % 12, next(&mut seed) % 100);
        let name = if name == 0 { "ConsoleLogin" } else { "GetSecretValue" };
        let event = format!(
            "{{\"eventTime\":\"2026-03-01T{:02}:{:02}:{:02}Z\",\"eventName\":\"{name}\",\"eventSource\":\"x.amazonaws.com\",\"eventID\":\"id-{n}\",\
             \"recipientAccountId\":\"111122223333\",\"userIdentity\":{{\"arn\":\"user-{user}\"}},\
             \"requestParameters\":{{\"secretId\":\"secret-{secret}\",\"size\":{size}}}}}\n",
            second / 3600,
            second / 60 % 60,
            second % 60
        );
        let home = n / EVENTS;
        for copy in 0..1 + usize::from(next(&mut seed).is_multiple_of(5)) {
            let stray = next(&mut seed).is_multiple_of(4) as usize;
            texts[(home + stray + copy) % FILES] += &event;
        }
    }
    let path = |(n, text)| {
        let path = folder.join(format!("part-{n:02}.json"));
        std::fs::write(&path, text).unwrap();
        path
    };
    texts.into_iter().enumerate().map(path).collect()
}

fn scan(rules: &Path, files: &[PathBuf]) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["scan", "--format", "json", "--rules"]).arg(rules).args(files).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn shuffled_files_give_the_same_findings() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yml");
    std::fs::write(&rules, RULES).unwrap();
    let mut files = write_day(folder.path());
    let expected = scan(&rules, &files);
    for title in ["few", "values", "percentile", "order", "never seen", "lowered", "silent"] {
        assert!(expected.iter().any(|line| line.contains(&format!("\"title\":\"{title}\""))), "no finding of `{title}`");
    }
    let mut seed = 11;
    for round in 0..8 {
        match round {
            0 => files.reverse(),
            _ => (1..files.len()).rev().for_each(|i| files.swap(i, next(&mut seed) as usize % (i + 1))),
        }
        let found = scan(&rules, &files);
        let differing: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(differing.is_empty(), "round {round}: {differing:#?}");
    }
    println!("{} findings in 9 orders of {FILES} files", expected.len());
}
