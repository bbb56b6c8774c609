//! Test cases of a detector: `<name>.cases.yml` beside `<name>.yml`.
//!
//! In: the text of a cases file. Out: cases whose events are bytes as a source would deliver them. Invariant: the same file
//! gives the same bytes; what a case leaves out has plain defaults.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{
    event::time,
    rule::{
        ast::{Span, Spanned},
        diagnostic::{Diagnostic, Report},
        extension::known_keys,
        meta::{text, texts},
        yaml::{self, Kind, Node},
    },
};

/// The time of a case's first event unless it says otherwise: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;
const ACCOUNT: &str = "111122223333";

#[derive(Debug, Default)]
pub struct CaseFile {
    /// Title, name or id of the rule that the cases are about; not needed where the sibling file has one.
    pub rule: Option<Spanned<String>>,
    /// Values of placeholders, for these cases.
    pub lists: BTreeMap<String, Vec<String>>,
    pub cases: Vec<Case>,
}

#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub expected: Expected,
    pub events: Vec<CaseEvent>,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Every event matches.
    Match,
    /// No event matches, or no alert is raised.
    NoMatch,
    /// This many alerts.
    Alerts(usize),
}

/// One event, ready for the decoder.
#[derive(Debug)]
pub struct CaseEvent {
    pub time_ms: i64,
    /// A CloudTrail record, or a CloudWatch Logs envelope around one log line.
    pub data: Vec<u8>,
    /// For messages: its eventName or log group.
    pub label: String,
    pub span: Span,
}

/// Reads the text of `file`. Cases with errors are left out.
pub fn parse(file: &Arc<str>, text: &str) -> (CaseFile, Vec<Diagnostic>) {
    let mut report = Report::new(file.clone());
    let nodes = yaml::parse(text, &mut report);
    let mut cases = CaseFile::default();
    match nodes.as_slice() {
        [node] => read(node, &mut cases, &mut report),
        [] => report.warn(Span::default(), "there are no cases", "add `cases:`"),
        [_, second, ..] => report.error_hint(second.span, "a cases file is one document", "remove the `---`"),
    }
    (cases, report.found)
}

fn read(node: &Node, cases: &mut CaseFile, report: &mut Report) {
    if !known_keys(node, &["rule", "lists", "cases"], "a cases file", report) {
        return;
    }
    cases.rule = node.get("rule").and_then(|node| text(node, "rule", report));
    for (name, values) in node.get("lists").and_then(Node::entries).unwrap_or_default() {
        let values = texts(values, "lists", report).into_iter().map(|value| value.value);
        cases.lists.insert(name.text().unwrap_or_default().to_owned(), values.collect());
    }
    match node.get("cases").map(|node| (&node.kind, node)) {
        Some((Kind::Sequence(items), _)) if !items.is_empty() => cases.cases.extend(items.iter().filter_map(|item| case(item, report))),
        other => {
            let span = other.map_or(node.span, |(_, node)| node.span);
            report.error_hint(span, "there are no cases", "write `cases:` and a list of {name, match, events}");
        }
    }
}

fn case(node: &Node, report: &mut Report) -> Option<Case> {
    if !known_keys(node, &["name", "match", "alerts", "events"], "a case", report) {
        return None;
    }
    let before = report.error_count();
    let name = node.get("name").and_then(|node| text(node, "name", report));
    if node.get("name").is_none() {
        report.error_hint(node.span, "the case has no name", "say in a few words what happens");
    }
    let expected = match (node.get("match"), node.get("alerts")) {
        (Some(matches), None) => matches.as_bool().map(|matches| if matches { Expected::Match } else { Expected::NoMatch }),
        (None, Some(alerts)) => alerts.as_number().and_then(|number| number.parse().ok()).map(Expected::Alerts),
        _ => None,
    };
    if expected.is_none() {
        report.error_hint(node.span, "the case does not say what must happen", "write either `match: true` or `false`, or `alerts:` and a number");
    }
    let events: Vec<_> = match node.get("events").map(|node| &node.kind) {
        Some(Kind::Sequence(items)) if !items.is_empty() => items.iter().enumerate().filter_map(|(index, item)| event(item, index, report)).collect(),
        _ => {
            report.error_hint(node.span, "the case has no events", "write `events:` and a list of them");
            Vec::new()
        }
    };
    (report.error_count() == before).then_some(Case { name: name?.value, expected: expected?, events, span: node.span })
}

fn event(node: &Node, index: usize, report: &mut Report) -> Option<CaseEvent> {
    let Value::Object(mut fields) = to_json(node) else {
        report.error_hint(node.span, format!("an event is a map, not {}", node.what()), "write the fields of a CloudTrail record, or `log: {…}`");
        return None;
    };
    let time_ms = match fields.remove("at") {
        None => START_MS + index as i64 * 1000,
        Some(at) => match at.as_str().and_then(offset_ms) {
            Some(offset_ms) => START_MS + offset_ms,
            None => {
                report.error_hint(
                    node.get("at").map_or(node.span, |at| at.span),
                    "`at` is no time",
                    "write `+90s`, `+5m`, `+2h`, `+1d`, or a full time",
                );
                return None;
            }
        },
    };
    let log = fields.remove("log");
    let (value, label) = match log {
        Some(log) => (envelope(&log, time_ms, index, node, report)?, log["group"].as_str().unwrap_or("log").to_owned()),
        None => {
            let label = fields.get("eventName").and_then(Value::as_str).unwrap_or("event").to_owned();
            (record(fields, time_ms, index), label)
        }
    };
    Some(CaseEvent { time_ms, data: value.to_string().into_bytes(), label, span: node.span })
}

/// A CloudTrail record: what the case says, then the fields that every record has.
fn record(mut fields: Map<String, Value>, time_ms: i64, index: usize) -> Value {
    let defaults = json!({
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "AIDA0000000000000001",
            "arn": format!("arn:aws:iam::{ACCOUNT}:user/someone"),
            "accountId": ACCOUNT,
            "userName": "someone",
        },
        "eventTime": time::format(time_ms).replace(".000Z", "Z"),
        "awsRegion": "us-east-1",
        "eventID": format!("00000000-0000-4000-8000-{:012x}", index + 1),
        "recipientAccountId": ACCOUNT,
    });
    if let Value::Object(defaults) = defaults {
        for (name, value) in defaults {
            fields.entry(name).or_insert(value);
        }
    }
    Value::Object(fields)
}

/// One text log line as CloudWatch Logs delivers it to a stream.
fn envelope(log: &Value, time_ms: i64, index: usize, node: &Node, report: &mut Report) -> Option<Value> {
    let part = |name: &str| log.get(name).and_then(Value::as_str);
    let (Some(group), Some(message)) = (part("group"), part("message")) else {
        report.error_hint(node.span, "a log line needs `group` and `message`", "write `log: {group: /aws/rds/instance/db/postgresql, message: '…'}`");
        return None;
    };
    Some(json!({
        "messageType": "DATA_MESSAGE",
        "owner": part("account").unwrap_or(ACCOUNT),
        "logGroup": group,
        "logStream": part("stream").unwrap_or("stream"),
        "subscriptionFilters": ["trailwarden"],
        "logEvents": [{"id": format!("{index:056}"), "timestamp": time_ms, "message": message}],
    }))
}

/// `+90s`, `+5m`, `+2h`, `+1d`, or a full time; from `START_MS`.
fn offset_ms(text: &str) -> Option<i64> {
    let Some(rest) = text.strip_prefix('+') else { return Some(time::parse(text.as_bytes())? - START_MS) };
    let unit_ms = match rest.as_bytes().last()? {
        b's' => 1000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        _ => return None,
    };
    let count: i64 = rest[..rest.len() - 1].parse().ok()?;
    (0..=3_653 * 86_400_000).contains(&count.checked_mul(unit_ms)?).then_some(count * unit_ms)
}

/// YAML values as JSON; a number that JSON can't hold stays text.
fn to_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Sequence(items) => Value::Array(items.iter().map(to_json).collect()),
        Kind::Mapping(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text().unwrap_or_default().to_owned(), to_json(value))).collect())
        }
        Kind::Scalar { text, .. } => {
            if node.is_null() {
                return Value::Null;
            }
            let number = || serde_json::from_str::<serde_json::Number>(&node.as_number()?).ok();
            node.as_bool().map(Value::Bool).or_else(|| number().map(Value::Number)).unwrap_or_else(|| Value::String(text.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (CaseFile, Vec<String>) {
        let (cases, found) = parse(&"x.cases.yml".into(), text);
        (cases, found.into_iter().map(|found| found.message).collect())
    }

    fn event(text: &str) -> Value {
        let (cases, found) = read(&format!("cases: [{{name: x, match: true, events: [{text}]}}]"));
        assert!(found.is_empty(), "{found:?}");
        serde_json::from_slice(&cases.cases[0].events[0].data).unwrap()
    }

    #[test]
    fn records_have_defaults() {
        let record = event("{eventName: X, awsRegion: eu-west-1, requestParameters: {a: 1, b: 'true', c: true, d: null, e: [012, 1.5]}}");
        assert_eq!(record["awsRegion"], "eu-west-1");
        assert_eq!(record["eventTime"], "2026-01-01T00:00:00Z");
        assert_eq!(record["recipientAccountId"], ACCOUNT);
        assert_eq!(record["requestParameters"].to_string(), r#"{"a":1,"b":"true","c":true,"d":null,"e":["012",1.5]}"#);
    }

    #[test]
    fn times_are_relative() {
        for (at, expected) in [("+5m", "2026-01-01T00:05:00Z"), ("+1d", "2026-01-02T00:00:00Z"), ("'2026-02-01T00:00:00Z'", "2026-02-01T00:00:00Z")] {
            assert_eq!(event(&format!("{{at: {at}}}"))["eventTime"], expected, "{at}");
        }
    }

    #[test]
    fn log_lines_come_in_an_envelope() {
        let line = event("{at: +1s, log: {group: /aws/rds/x, message: 'FATAL: no'}}");
        assert_eq!(line["messageType"], "DATA_MESSAGE");
        assert_eq!((&line["logEvents"][0]["message"], &line["logEvents"][0]["timestamp"]), (&json!("FATAL: no"), &json!(START_MS + 1000)));
    }

    #[test]
    fn errors_tell() {
        for (text, expected) in [
            ("cases: []", "no cases"),
            ("", "no cases"),
            ("cases: [{name: x, match: yes, events: [{}]}]", "does not say"),
            ("cases: [{name: x, match: true, alerts: 1, events: [{}]}]", "does not say"),
            ("cases: [{match: true, events: [{}]}]", "no name"),
            ("cases: [{name: x, match: true, events: []}]", "no events"),
            ("cases: [{name: x, match: true, events: [x]}]", "an event is a map"),
            ("cases: [{name: x, match: true, events: [{at: soon}]}]", "`at` is no time"),
            ("cases: [{name: x, match: true, events: [{log: {group: x}}]}]", "needs `group` and `message`"),
            ("cases: [{name: x, mach: true, events: [{}]}]", "unknown key of a case `mach`"),
            ("cases: [{name: x, match: true, events: [{}]}]\n---\na: b", "one document"),
        ] {
            let found = read(text).1;
            assert!(found.iter().any(|message| message.contains(expected)), "{text}: {found:?}");
        }
    }
}
