//! Whole files: kinds of documents, metadata, extensions, errors beside good neighbours, and hostile text.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::rule::ast::{Level, Profile, Scope, State, Status};

const RULE: &str = "title: Snapshot shared
id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11
name: snapshot_shared
status: stable
level: critical
description: A snapshot is given away.
author: us
date: 2026-01-02
references:
  - https://example.org
tags:
  - attack.t1537
  - pillar.exfiltration
related:
  - {id: 0a9f7a52-7a55-4f1c-9f0e-0d0f9a3e0c12, type: derived}
falsepositives:
  - a planned copy
logsource:
  product: aws
  service: cloudtrail
detection:
  selection:
    eventName|startswith: Modify
  filter_own:
    requestParameters.valuesToAdd|expand: '%own_accounts%'
  condition: selection and not 1 of filter_*
trailwarden:
  summary: '{userIdentity.arn} shared {requestParameters.x}'
  next: Remove the share.
  profile: quiet
  scope: organization
  group: userIdentity.arn
  state: {type: new_value, fields: [userIdentity.arn], memory: 30d, learning: 1d}
my_own_key: {anything: goes}
";

fn read(text: &str) -> Parsed {
    parse(&"x.yml".into(), text, &Lists::default())
}

fn rule(text: &str) -> Rule {
    let mut parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    match parsed.documents.remove(0) {
        Document::Rule(rule) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_rule_is_read() {
    let rule = rule(RULE);
    let meta = &rule.meta;
    assert_eq!((&*meta.title.value, meta.level, meta.status), ("Snapshot shared", Level::Critical, Some(Status::Stable)));
    assert_eq!((meta.tags.len(), meta.references.len(), meta.false_positives.len(), meta.related.len()), (2, 1, 1, 1));
    assert_eq!((meta.date.as_deref(), &*meta.author), (Some("2026-01-02"), "us"));
    let ext = &meta.ext;
    assert_eq!((ext.profile, ext.scope, ext.group.len()), (Profile::Quiet, Scope::Organization, 1));
    assert_eq!(ext.next.as_deref(), Some("Remove the share."));
    let Some(State::NewValue { fields, memory_ms, learning_ms, .. }) = ext.state.as_ref().map(|state| &state.value) else { panic!() };
    assert_eq!((fields.len(), *memory_ms, *learning_ms), (1, 30 * 86_400_000, 86_400_000));
    assert_eq!(rule.selections.len(), 2);
    assert_eq!(rule.logsource.service.as_ref().unwrap().value, "cloudtrail");
    assert_eq!(&RULE[meta.title.span.start as usize..meta.title.span.end as usize], "Snapshot shared");
}

#[test]
fn a_file_may_hold_all_kinds() {
    let text = format!(
        "{RULE}---\ntitle: Many\ncorrelation: {{type: event_count, rules: snapshot_shared, timespan: 1h, condition: {{gte: 3}}}}\n---\n\
         title: Not the admin\nlogsource: {{product: aws}}\nfilter: {{rules: any, admin: {{a: x}}, condition: not admin}}\n"
    );
    let parsed = read(&text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    assert!(matches!(parsed.documents.as_slice(), [Document::Rule(_), Document::Correlation(_), Document::Filter(_)]));
}

#[test]
fn errors_and_warnings_tell() {
    let rule = |from: &str, to: &str| {
        assert!(RULE.contains(from), "{from}");
        RULE.replace(from, to)
    };
    for (text, is_error, expected) in [
        (rule("title: Snapshot shared\n", ""), true, "has no title"),
        (rule("title: Snapshot shared", "title: []"), true, "`title` must be text"),
        (rule("level: critical", "level: hihg"), true, "unknown level `hihg`"),
        (rule("level: critical", "levl: critical"), false, "`levl` is no key of Sigma"),
        (rule("status: stable", "status: done"), true, "unknown status"),
        (rule("status: stable", "status: deprecated"), false, "should not be used"),
        (rule("id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11", "id: one"), false, "no UUID"),
        (rule("date: 2026-01-02", "date: 2026/01/02"), false, "`date` is no date"),
        (rule("  - attack.t1537", "  - T1537"), false, "no namespace"),
        (rule("  - attack.t1537", "  - pillar.exfiltration"), false, "stands twice"),
        (rule("type: derived", "type: cousin"), false, "not a relation"),
        (rule("  product: aws\n  service: cloudtrail", "  definition: x"), true, "names no category"),
        (rule("logsource:", "logsourc:"), true, "has no logsource"),
        (rule("detection:", "detektion:"), true, "detects nothing"),
        (rule("  profile: quiet", "  profile: loud"), true, "unknown profile"),
        (rule("  profile: quiet", "  profil: quiet"), true, "unknown key of `trailwarden` `profil`"),
        (rule("{userIdentity.arn} shared", "{userIdentity.arn shared"), true, "brace"),
        (rule("{userIdentity.arn} shared", "}"), true, "brace"),
        (rule("{userIdentity.arn} shared", "{}"), true, "brace"),
        (rule("type: new_value", "type: new_valu"), true, "did you mean"),
        (rule("fields: [userIdentity.arn], ", ""), true, "needs `fields`"),
        (rule("memory: 30d", "memory: 30"), true, "no duration"),
        (rule("level: critical", "level: critical\nlevel: low"), true, "stands twice"),
        (rule("level: critical", "action: global"), true, "collections"),
        (rule("level: critical", "filter: {}"), true, "one of rule"),
        ("- a\n- b\n".into(), true, "a rule is a map"),
        ("".into(), false, "no document"),
        ("# only a comment\n".into(), false, "no document"),
        ("title: x\nlogsource: {product: a}\nfilter: {sel: {a: x}, condition: sel}".into(), true, "needs `rules`"),
        ("title: x\nfilter: {rules: any, sel: {a: x}, condition: sel}".into(), true, "no logsource"),
    ] {
        let parsed = read(&text);
        let found = parsed.diagnostics.iter().find(|found| {
            let told = format!("{} {}", found.message, found.hint.as_deref().unwrap_or_default());
            told.contains(expected)
        });
        assert_eq!(found.map(Diagnostic::is_error), Some(is_error), "{expected}: {:?}", parsed.diagnostics);
        assert_eq!(parsed.documents.is_empty(), is_error || text.len() < 30, "{expected}: {:?}", parsed.diagnostics);
    }
}

#[test]
fn a_bad_document_leaves_its_neighbours() {
    let text = format!("{RULE}---\ntitle: bad\nname: bad_one\ndetection: {{}}\n---\n{RULE}---\na: 1\na: 2\n");
    let parsed = read(&text);
    assert_eq!(parsed.documents.len(), 2, "{:?}", parsed.diagnostics);
    assert_eq!(parsed.refused, ["bad_one"]);
}

#[test]
fn hostile_files_end_fast() {
    for text in ["[".repeat(100_000), "a: &a [*a]\n".repeat(10_000), format!("title: {}", "x".repeat(1_000_000)), RULE.repeat(300)] {
        let start = Instant::now();
        read(&text);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        read(&text);
    }

    /// Bytes of a good rule, cut, doubled and changed.
    #[test]
    fn any_mutation_is_read_or_refused(cuts in proptest::collection::vec((0..RULE.len(), 0..RULE.len(), "[\\PC\\n]{0,3}"), 1..6)) {
        let mut text = RULE.to_owned();
        for (from, to, with) in cuts {
            let (from, to) = (text.floor_char_boundary(from), text.floor_char_boundary(to));
            if from <= to {
                text.replace_range(from..to, &with);
            } else {
                let copy = text[to..from].to_owned();
                text.insert_str(from, &copy);
            }
        }
        for found in read(&text).diagnostics {
            found.render(&text, false);
        }
    }
}
