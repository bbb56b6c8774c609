//! Alerts to test with.
//!
//! In: a number. Out: an alert as correlation makes them. Invariant: different numbers, different ids.
#![allow(dead_code)]

use std::sync::Arc;

use trailwarden::alert::{Alert, EventRef, Level, RuleInfo};

pub const TIME_MS: i64 = 1_764_000_000_000;

pub fn rule(id: &str, level: Level) -> Arc<RuleInfo> {
    Arc::new(RuleInfo {
        id: id.into(),
        title: "Snapshots purged".into(),
        level,
        tags: vec!["attack.impact".into(), "attack.t1490".into(), "attack.t1078.004".into(), "pillar.backup".into(), "service.rds".into()],
        description: "One principal deletes many snapshots within an hour.".into(),
        false_positives: vec!["A planned clean-up of old snapshots.".into()],
        next: Some("Ask the principal's owner; if unplanned, deny its role and copy what is left to another account.".into()),
        resolve_after_ms: None,
    })
}

pub fn alert(n: u64, level: Level) -> Alert {
    Alert {
        id: format!("{n:032x}"),
        incident: format!("{n:032x}"),
        time_ms: TIME_MS + n as i64 * 1000,
        rule: rule("7c1d3c52-0000-4000-8000-000000000001", level),
        account: "111122223333".into(),
        region: "eu-west-1".into(),
        group: vec![("userIdentity.arn".into(), "arn:aws:iam::111122223333:user/mallory".into()), ("sourceIPAddress".into(), "203.0.113.7".into())],
        summary: "user mallory deleted 12 snapshots of prod-db from 203.0.113.7".into(),
        events: vec![EventRef {
            id: format!("event-{n}"),
            time: "2025-11-24T16:00:00Z".into(),
            source: "rds.amazonaws.com".into(),
            name: "DeleteDBSnapshot".into(),
        }],
        count: 12,
        late: false,
        resolved: false,
        arrived_ms: 0,
    }
}
