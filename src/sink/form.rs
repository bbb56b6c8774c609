//! Notices as text and JSON, for the sinks that leave the form to the config.
//!
//! In: a notice. Out: one line of JSON, one of OCSF, or some lines for people. Invariant: a JSON form is one line, and all text
//! forms are plain.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Action, Notice};
use crate::alert::{
    Alert,
    escape::{json as json_line, limit, plain},
    ocsf,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// For people.
    Text,
    /// Trailwarden's own, as `scan --format json` prints it, with what delivery knows besides.
    #[default]
    Json,
    /// OCSF Detection Finding.
    Ocsf,
}

/// Text of an alert that people read is cut here.
const TEXT_CHARS: usize = 2_000;
/// One value of an alert that is over its sink's size.
const VALUE_CHARS: usize = 500;

impl Form {
    /// At most `max_bytes` long: events go first, then the text is cut.
    pub fn render(self, notice: &Notice, max_bytes: usize) -> String {
        let whole = self.render_whole(notice);
        if whole.len() <= max_bytes {
            return whole;
        }
        let mut cut = notice.clone();
        cut.alert.events.truncate(1);
        let cut_text = |text: &mut String, chars| *text = limit(text, chars).into_owned();
        cut_text(&mut cut.alert.summary, TEXT_CHARS);
        cut.alert.group.truncate(8);
        cut.alert.group.iter_mut().for_each(|(_, value)| cut_text(value, VALUE_CHARS));
        for event in &mut cut.alert.events {
            [&mut event.id, &mut event.source, &mut event.name].into_iter().for_each(|text| cut_text(text, VALUE_CHARS));
        }
        [&mut cut.alert.account, &mut cut.alert.region, &mut cut.incident].into_iter().for_each(|text| cut_text(text, VALUE_CHARS));
        self.render_whole(&cut)
    }

    fn render_whole(self, notice: &Notice) -> String {
        match self {
            Self::Text => text(notice),
            Self::Json => json_line(notice_json(notice).to_string()),
            Self::Ocsf => {
                let activity = match notice.action {
                    Action::Trigger if notice.alerts > 1 => ocsf::Activity::Update,
                    Action::Trigger => ocsf::Activity::Create,
                    Action::Acknowledge => ocsf::Activity::Update,
                    Action::Resolve => ocsf::Activity::Close,
                };
                json_line(ocsf::detection_finding(&notice.alert, activity, notice.account_name.as_deref()).to_string())
            }
        }
    }
}

/// The documented JSON of an alert (DESIGN.md 1).
pub fn alert_json(alert: &Alert) -> Value {
    let group: serde_json::Map<String, Value> = alert.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "id": alert.id,
        "time": rfc3339(alert.time_ms),
        "rule": { "id": alert.rule.id, "title": alert.rule.title, "level": alert.rule.level, "tags": alert.rule.tags },
        "account": alert.account,
        "region": alert.region,
        "group": group,
        "summary": alert.summary,
        "events": alert.events,
        "count": alert.count,
        "late": alert.late,
    })
}

fn notice_json(notice: &Notice) -> Value {
    let mut value = alert_json(&notice.alert);
    value["incident"] = json!(notice.incident);
    value["action"] = json!(notice.action);
    value["alerts"] = json!(notice.alerts);
    value["account_name"] = json!(notice.account_name);
    value["next"] = json!(notice.alert.rule.next);
    value["storm"] = json!(notice.storm);
    value["test"] = json!(notice.test);
    if let Some(note) = &notice.note {
        value["note"] = json!(note);
    }
    value
}

/// A line that begins with the level in capitals, then indented lines: why, and what to do.
pub fn text(notice: &Notice) -> String {
    let alert = &notice.alert;
    let word = if notice.action == Action::Resolve { "RESOLVED".to_owned() } else { notice.level().to_uppercase() };
    let mut out = format!("{word} {}\n", limit(&notice.headline(), TEXT_CHARS));
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {name:<9}{}", limit(&plain(value), TEXT_CHARS));
        }
    };
    line("where", &notice.place());
    line("when", &rfc3339(alert.time_ms));
    line("rule", &alert.rule.id);
    let group: Vec<String> = alert.group.iter().map(|(name, value)| format!("{name}={value}")).collect();
    line("group", &group.join(" "));
    line("events", &alert.count.to_string());
    line("next", alert.rule.next.as_deref().unwrap_or_default());
    line("note", notice.note.as_deref().unwrap_or_default());
    line("incident", &notice.incident);
    out
}

/// RFC 3339 in UTC, to the millisecond where there is one.
pub fn rfc3339(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).map(|t| t.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::notice, *};

    #[test]
    fn every_form_holds_its_size_whatever_is_long() {
        let long = "ä\u{1b}\"".repeat(70_000);
        let mut big = notice();
        big.alert.events = vec![big.alert.events[0].clone(); 2];
        for event in &mut big.alert.events {
            (event.id, event.source, event.name) = (long.clone(), long.clone(), long.clone());
        }
        big.alert.group = vec![("userName".into(), long.clone()); 3];
        (big.alert.summary, big.alert.account, big.alert.region, big.incident) = (long.clone(), long.clone(), long.clone(), long);
        for form in [Form::Text, Form::Json, Form::Ocsf] {
            let text = form.render(&big, 256_000);
            assert!(text.len() <= 256_000, "{form:?}: {} bytes", text.len());
            assert!(form == Form::Text || serde_json::from_str::<Value>(&text).is_ok(), "{form:?}");
            assert!(text.contains("Snapshots purged"), "{form:?}");
        }
    }
}
