//! What the sinks' own tests share, and the hostile corpus over all forms.
//!
//! In: hostile text in every field that an event can fill. Out: nothing live in any form. Invariant: one corpus, all sinks.

use std::sync::Arc;

use super::*;
use crate::alert::{EventRef, Level, RuleInfo};

pub(super) fn notice() -> Notice {
    Notice::trigger(Alert {
        id: "0123456789abcdef0123456789abcdef".into(),
        incident: "0123456789abcdef0123456789abcdef".into(),
        time_ms: 1_764_000_000_000,
        rule: Arc::new(RuleInfo {
            id: "7c1d3c52-0000-4000-8000-000000000001".into(),
            title: "Snapshots purged".into(),
            level: Level::Critical,
            tags: vec!["attack.t1490".into(), "pillar.backup".into(), "service.rds".into()],
            description: "One principal deletes many snapshots.".into(),
            false_positives: vec![],
            next: Some("Ask the owner.".into()),
            resolve_after_ms: None,
        }),
        account: "111122223333".into(),
        region: "eu-west-1".into(),
        group: vec![("sourceIPAddress".into(), "203.0.113.7".into())],
        summary: "mallory deleted 12 snapshots from 203.0.113.7".into(),
        events: vec![EventRef {
            id: "e-1".into(),
            time: "2025-11-24T16:00:00Z".into(),
            source: "rds.amazonaws.com".into(),
            name: "DeleteDBSnapshot".into(),
        }],
        count: 12,
        late: false,
        resolved: false,
        arrived_ms: 0,
    })
}
