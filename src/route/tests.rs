//! Routes, silences, windows and storms, as tables.
//!
//! In: small configs and alerts. Out: verdicts. Invariant: no clock is read.

use std::sync::Arc;

use super::*;

fn alert(level: Level, account: &str, tags: &[&str]) -> Alert {
    let mut alert = crate::store::tests::alert(0, level, 0);
    let rule = Arc::make_mut(&mut alert.rule);
    (rule.id, rule.tags) = ("r1".into(), tags.iter().map(|t| (*t).to_owned()).collect());
    Alert { account: account.into(), group: vec![("user".into(), "mallory".into())], ..alert }
}

const SINKS: [&str; 3] = ["pager", "chat", "archive"];

#[test]
fn alerts_go_where_the_routes_say() {
    let config: Config = serde_saphyr::from_str(
        "routes:
           - { sinks: [archive] }
           - { match: { accounts: ['999'] }, sinks: [chat], stop: true }
           - { match: { min_level: high, pillars: [backup, encryption] }, sinks: [pager, chat] }
           - { match: { tags: [service.rds], group: { user: mallory } }, sinks: [chat] }",
    )
    .unwrap();
    let router = Router::new(&config, &SINKS).unwrap();
    for (level, account, tags, expected) in [
        (Level::Critical, "111", &["pillar.backup"][..], &[0, 1, 2][..]),
        (Level::Medium, "111", &["pillar.backup"], &[2]),
        (Level::Critical, "999", &["pillar.backup"], &[1, 2]),
        (Level::Critical, "111", &["pillar.network"], &[2]),
        (Level::Low, "111", &["service.rds"], &[1, 2]),
    ] {
        assert_eq!(router.route(&alert(level, account, tags)), expected, "{level:?} {account} {tags:?}");
    }
    assert!(!router.has_gap());
    assert_eq!(Router::new(&Config::default(), &SINKS).unwrap().route(&alert(Level::Low, "1", &[])), [0, 1, 2]);
}

#[test]
fn a_wrong_route_says_which_and_why() {
    for (yaml, expected) in [
        ("routes: [{ sinks: [pagr] }]", "routing.routes[0]: no sink is called `pagr`; there are: pager, chat, archive"),
        ("routes: [{ sinks: [] }]", "routing.routes[0]: `sinks` is empty; name one, or leave the route out"),
        ("maintenance: [{ reason: x, from: '1:00' }]", "routing.maintenance[0]: give either"),
        ("maintenance: [{ reason: x, from: '25:00', to: '1:00' }]", "routing.maintenance[0]: `25:00` is no time of day like 02:30"),
        ("maintenance: [{ reason: x, days: [someday], from: '1:00', to: '2:00' }]", "routing.maintenance[0]: `someday` is no day"),
        ("maintenance: [{ reason: '', from: '1:00', to: '2:00' }]", "routing.maintenance[0]: say why"),
    ] {
        let config: Config = serde_saphyr::from_str(yaml).unwrap();
        let error = Router::new(&config, &SINKS).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn windows_open_and_close_by_utc() {
    let open = |yaml: &str, at: &str| {
        let config: WindowConfig = serde_saphyr::from_str(yaml).unwrap();
        Window::new(&config).unwrap().is_open(at.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    };
    let saturday_night = "{ reason: patch, days: [Sat], from: '23:00', to: '02:00' }";
    for (yaml, at, expected) in [
        // 2026-01-31 is a Saturday.
        (saturday_night, "2026-01-31T22:59:59Z", false),
        (saturday_night, "2026-01-31T23:00:00Z", true),
        (saturday_night, "2026-02-01T01:59:59Z", true),
        (saturday_night, "2026-02-01T02:00:00Z", false),
        (saturday_night, "2026-02-01T23:30:00Z", false),
        ("{ reason: nightly, from: '01:00', to: '01:30' }", "2026-02-04T01:10:00Z", true),
        ("{ reason: once, starts: '2026-02-01T00:00:00Z', ends: '2026-02-01T01:00:00Z' }", "2026-02-01T00:30:00Z", true),
        ("{ reason: once, starts: '2026-02-01T00:00:00Z', ends: '2026-02-01T01:00:00Z' }", "2026-02-08T00:30:00Z", false),
    ] {
        assert_eq!(open(yaml, at), expected, "{yaml} {at}");
    }
}

#[test]
fn silences_end_and_give_a_reason() {
    let request = |json: &str| Silence::new("s1".into(), serde_json::from_str(json).unwrap(), 1_000);
    let silence = request(r#"{"match":{"accounts":["111"]},"seconds":60,"reason":"drill"}"#).unwrap();
    for (account, at, expected) in [("111", 1_000, true), ("111", 60_999, true), ("111", 61_000, false), ("222", 2_000, false)] {
        assert_eq!(silence.covers(&alert(Level::High, account, &[]), at), expected, "{account} {at}");
    }
    for (json, expected) in [
        (r#"{"match":{},"seconds":60,"reason":"x"}"#, SilenceError::Everything),
        (r#"{"match":{"rules":["r"]},"seconds":60,"reason":" "}"#, SilenceError::NoReason),
        (r#"{"match":{"rules":["r"]},"seconds":0,"reason":"x"}"#, SilenceError::Span),
        (r#"{"match":{"rules":["r"]},"seconds":2592001,"reason":"x"}"#, SilenceError::Span),
    ] {
        assert_eq!(request(json), Err(expected), "{json}");
    }
}

#[test]
fn a_storm_starts_counts_and_ends() {
    let mut storms = StormControl::new(StormConfig { incidents: 3, window_seconds: 10, update_seconds: 60 });
    let mut own = 0;
    let mut keys = std::collections::BTreeSet::new();
    for n in 0..1_000 {
        match storms.judge("r", n) {
            Verdict::Own => own += 1,
            Verdict::Storm { key } => drop(keys.insert(key)),
        }
    }
    assert_eq!((own, keys.len()), (3, 1));
    assert_eq!(storms.judge("other", 1_000), Verdict::Own);
    let row = storms.row("r").unwrap().clone();
    let mut restarted = StormControl::new(StormConfig { incidents: 3, window_seconds: 10, update_seconds: 60 });
    restarted.restore("r".into(), row);
    assert_eq!(restarted.judge("r", 5_000), Verdict::Storm { key: keys.pop_first().unwrap() });
    assert_eq!(restarted.judge("r", 15_000), Verdict::Own, "ten quiet seconds end the storm");
}
