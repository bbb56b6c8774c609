//! The custom attribute `trailwarden:` of a document.
//!
//! In: its mapping. Out: `Extension`. Invariant: unlike Sigma's own custom attributes, an unknown key here is an error, as
//! it was surely meant to do something.

use crate::rule::{
    ast::{Extension, Profile, Scope, Span, Spanned, State},
    diagnostic::Report,
    meta::{choice, text, texts},
    yaml::Node,
};

pub(in crate::rule) const KEYS: [&str; 7] = ["summary", "next", "profile", "scope", "group", "resolve-after", "state"];
pub(in crate::rule) const PROFILES: [(&str, Profile); 3] =
    [("quiet", Profile::Quiet), ("standard", Profile::Standard), ("paranoid", Profile::Paranoid)];
pub(in crate::rule) const SCOPES: [(&str, Scope); 2] = [("account", Scope::Account), ("organization", Scope::Organization)];

const DAY_MS: u64 = 24 * 3600 * 1000;
/// A value not seen for this long counts as new again.
const DEFAULT_MEMORY_MS: u64 = 90 * DAY_MS;
const DEFAULT_LEARNING_MS: u64 = 7 * DAY_MS;
/// Ten years: longer is a typing mistake, and far from overflow.
const MAX_DURATION_MS: u64 = 3653 * DAY_MS;

pub(in crate::rule) fn parse(node: &Node, report: &mut Report) -> Extension {
    let mut ext = Extension::default();
    if !known_keys(node, &KEYS, "`trailwarden`", report) {
        return ext;
    }
    ext.summary = node.get("summary").and_then(|node| summary(node, report));
    ext.next = node.get("next").and_then(|node| text(node, "next", report)).map(|text| text.value);
    ext.profile = node.get("profile").and_then(|node| choice(node, "profile", &PROFILES, report)).unwrap_or_default();
    ext.scope = node.get("scope").and_then(|node| choice(node, "scope", &SCOPES, report)).unwrap_or_default();
    ext.group = node.get("group").map_or_else(Vec::new, |node| texts(node, "group", report));
    ext.resolve_after_ms = node.get("resolve-after").and_then(|node| duration_ms(node, "resolve-after", report));
    ext.state = node.get("state").and_then(|node| Some(Spanned { value: state(node, report)?, span: node.span }));
    ext
}

/// `{field.path}` placeholders must close, and nothing else may stand in braces.
fn summary(node: &Node, report: &mut Report) -> Option<Spanned<String>> {
    let summary = text(node, "summary", report)?;
    let mut rest = summary.value.as_str();
    while let Some(start) = rest.find(['{', '}']) {
        let closed = rest[start..].starts_with('{').then(|| rest[start + 1..].find(['{', '}'])).flatten();
        match closed.map(|length| &rest[start + 1..start + 2 + length]) {
            Some(inner) if inner.ends_with('}') && inner.len() > 1 && !inner.contains(char::is_whitespace) => rest = &rest[start + 1 + inner.len()..],
            _ => {
                report.error_hint(summary.span, "a brace in the summary belongs to no field", "write `{field.path}`, without spaces");
                return None;
            }
        }
    }
    Some(summary)
}

fn state(node: &Node, report: &mut Report) -> Option<State> {
    let kinds = [("new_value", 0), ("value_drop", 1), ("absence", 2)];
    let Some(kind) = node.get("type") else {
        report.error_hint(node.span, "a state needs its type", "write `type: new_value`, `value_drop` or `absence`");
        return None;
    };
    let group_by = |report: &mut Report| node.get("group-by").map_or_else(Vec::new, |node| texts(node, "group-by", report));
    match choice(kind, "type of state", &kinds, report)? {
        0 => {
            known_keys(node, &["type", "fields", "field", "group-by", "memory", "learning"], "a new_value state", report);
            let fields = node.get("fields").or(node.get("field")).map_or_else(Vec::new, |node| texts(node, "fields", report));
            if fields.is_empty() {
                report.error_hint(node.span, "a new_value state needs `fields`", "name the fields whose values are remembered");
                return None;
            }
            let memory_ms = optional_duration(node, "memory", DEFAULT_MEMORY_MS, report)?;
            let learning_ms = optional_duration(node, "learning", DEFAULT_LEARNING_MS, report)?;
            Some(State::NewValue { fields, group_by: group_by(report), memory_ms, learning_ms })
        }
        1 => {
            known_keys(node, &["type", "field", "group-by", "timespan"], "a value_drop state", report);
            let Some(field) = node.get("field") else {
                report.error_hint(node.span, "a value_drop state needs `field`", "name the field whose number may fall");
                return None;
            };
            let field = text(field, "field", report)?;
            Some(State::ValueDrop { field, group_by: group_by(report), timespan_ms: timespan(node, report)? })
        }
        _ => {
            known_keys(node, &["type", "group-by", "timespan"], "an absence state", report);
            Some(State::Absence { group_by: group_by(report), timespan_ms: timespan(node, report)? })
        }
    }
}

fn optional_duration(node: &Node, key: &str, default_ms: u64, report: &mut Report) -> Option<u64> {
    node.get(key).map_or(Some(default_ms), |node| duration_ms(node, key, report))
}

/// The `timespan` of a correlation or state; an error if there is none.
pub(in crate::rule) fn timespan(node: &Node, report: &mut Report) -> Option<u64> {
    match node.get("timespan") {
        Some(span) => duration_ms(span, "timespan", report),
        None => {
            report.error_hint(Span { end: node.span.start, ..node.span }, "there is no timespan", "add one, as in `timespan: 1h`");
            None
        }
    }
}

/// `90s`, `15m`, `1h`, `7d`, `2w`.
fn duration_ms(node: &Node, what: &str, report: &mut Report) -> Option<u64> {
    let value = text(node, what, report)?;
    let unit_ms = match value.value.as_bytes().last() {
        Some(b's') => 1000,
        Some(b'm') => 60 * 1000,
        Some(b'h') => 3600 * 1000,
        Some(b'd') => DAY_MS,
        Some(b'w') => 7 * DAY_MS,
        _ => 0,
    };
    let digits = &value.value[..value.value.len().saturating_sub(1)];
    let count = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().unwrap_or(u64::MAX) } else { 0 };
    match count.saturating_mul(unit_ms) {
        0 => {
            report.error_hint(value.span, format!("`{what}` is no duration"), "write a number above 0 and a unit, as in `90s`, `15m`, `1h`, `7d`");
            None
        }
        MAX_DURATION_MS.. => {
            report.error_hint(value.span, format!("`{what}` is longer than ten years"), "write a shorter one");
            None
        }
        milliseconds => Some(milliseconds),
    }
}

/// Whether `node` is a map; keys that are not in `known` are errors.
pub(in crate::rule) fn known_keys(node: &Node, known: &[&'static str], what: &str, report: &mut Report) -> bool {
    let Some(entries) = node.entries() else {
        report.error_hint(node.span, format!("{what} must be a map, not {}", node.what()), format!("its keys are: {}", known.join(", ")));
        return false;
    };
    for (key, _) in entries {
        let name = key.text().unwrap_or_default();
        if !known.contains(&name) {
            report.unknown(key.span, &format!("key of {what}"), name, known.iter().copied());
        }
    }
    true
}
