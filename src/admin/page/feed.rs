//! The alerts of the page: an incident is a line that opens to why it fired, what to do, and its earlier alerts.
//!
//! In: the newest views of the store. Out: one `article` an incident, the latest first. Invariant: its id is the incident's, so that
//! the script can keep what is open.

use std::collections::HashMap;

use serde_json::json;

use super::{super::api, Admin, time};
use crate::{
    alert::{
        escape::{html, limit},
        level_word,
        view::{AlertView, Fate, RECENT_ALERTS},
    },
    store::StoreError,
};

/// Incidents.
const SHOWN: usize = 60;
const SHOWN_EVENTS: usize = 10;
/// Of one incident, besides the newest alert.
const SHOWN_EARLIER: usize = 10;

pub(super) fn alerts(admin: &Admin) -> Result<String, StoreError> {
    let views = api::recent(admin, &api::AlertQuery { limit: Some(RECENT_ALERTS), ..Default::default() })?;
    if views.is_empty() {
        return Ok("<p class=\"empty\" id=\"no-alerts\">Nothing so far. Alerts appear here the moment a rule fires.</p>".into());
    }
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut incidents: Vec<Vec<&AlertView>> = Vec::new();
    for view in &views {
        let place = *places.entry(&view.incident).or_insert_with(|| {
            incidents.push(Vec::new());
            incidents.len() - 1
        });
        incidents[place].push(view);
    }
    Ok(incidents.iter().take(SHOWN).filter_map(|views| views.split_first()).map(|(newest, earlier)| article(newest, earlier)).collect())
}

fn article(view: &AlertView, earlier: &[&AlertView]) -> String {
    let alert = &view.alert;
    let level = level_word(alert.rule.level);
    let (fate, chip) = fate(view);
    let quiet = if fate == "silenced" { " quiet" } else { "" };
    let times = if earlier.is_empty() { String::new() } else { format!("<span class=\"chip\">{} alerts</span> ", earlier.len() + 1) };
    format!(
        "<article class=\"alert {level}\" id=\"a-{id}\" data-v=\"{fate}-{newest}-{seen}\" data-level=\"{level}\" data-fate=\"{fate}\"><details>\
         <summary><span class=\"badge\">{level}</span><span class=\"what{quiet}\"><b>{title}</b><span>{summary}</span><span class=\"where\">{place}</span></span>\
         <span class=\"when\">{when}<span class=\"chips\">{times}<span class=\"chip\">{chip}</span></span></span></summary>\
         <div class=\"body\">{why}{next}{events}{before}{acts}</div></details></article>",
        id = html(&view.incident),
        newest = html(&alert.id),
        seen = view.seen_ms,
        title = html(&alert.rule.title),
        summary = told(&limit(&alert.summary, 400), &alert.account),
        place = place(view),
        when = time(view.seen_ms),
        why = why(view),
        next = next(view),
        events = events(view),
        before = before(earlier),
        acts = acts(view),
    )
}

/// A summary as people read it: principals of the alert's own account by their short names, the whole ARN at hand.
fn told(summary: &str, account: &str) -> String {
    let short = |word: &str| -> Option<String> {
        let (_, rest) = word.split_once(&format!("::{account}:")).filter(|(service, _)| matches!(*service, "arn:aws:iam" | "arn:aws:sts"))?;
        Some(rest.strip_prefix("assumed-role/").unwrap_or(rest).to_owned())
    };
    let word = |word: &str| match short(word).filter(|_| !account.is_empty()) {
        Some(short) => format!("<span class=\"arn\" title=\"{}\">{}</span>", html(word), html(&short)),
        None => html(word),
    };
    summary.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The incident's alerts before the newest.
fn before(earlier: &[&AlertView]) -> String {
    if earlier.is_empty() {
        return String::new();
    }
    let line = |view: &&AlertView| format!("<li>{} {}</li>", time(view.seen_ms), told(&limit(&view.alert.summary, 200), &view.alert.account));
    let lines: String = earlier.iter().take(SHOWN_EARLIER).map(line).collect();
    let more = earlier.len().saturating_sub(SHOWN_EARLIER);
    let more = if more > 0 { format!("<p class=\"where\">and {more} more</p>") } else { String::new() };
    format!("<section class=\"events\"><h3>Before, in this incident</h3><ul class=\"before\">{lines}</ul>{more}</section>")
}

/// A word for the script and one for people.
fn fate(view: &AlertView) -> (&'static str, String) {
    let to = || html(&view.sinks.join(", "));
    match &view.fate {
        _ if view.test => ("test", format!("test → {}", to())),
        Fate::Sent => ("sent", format!("→ {}", to())),
        Fate::Grouped => ("grouped", format!("→ {}", to())),
        Fate::Storm => ("storm", "counted in a storm".into()),
        Fate::Silenced { reason } => ("silenced", format!("silenced: {}", html(&limit(reason, 40)))),
        Fate::Unrouted => ("unrouted", "no route".into()),
        Fate::Resolved => ("resolved", "over".into()),
    }
}

fn place(view: &AlertView) -> String {
    let account = match &view.account_name {
        Some(name) => format!("{name} ({})", view.alert.account),
        None => view.alert.account.clone(),
    };
    let parts = [account.as_str(), view.alert.region.as_str(), view.alert.pillar().unwrap_or_default()];
    html(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · "))
}

fn why(view: &AlertView) -> String {
    let alert = &view.alert;
    let mut pairs = String::new();
    let mut pair = |name: &str, value: &str| {
        if !value.is_empty() {
            pairs += &format!("<dt>{}</dt><dd class=\"mono\">{}</dd>", html(name), html(&limit(value, 500)));
        }
    };
    for (name, value) in &alert.group {
        pair(name, value);
    }
    pair("rule", &alert.rule.id);
    pair("events", &alert.count.to_string());
    let technique = |tag: &str| {
        if tag.starts_with(['t', 'g', 's']) && tag[1..].starts_with(|c: char| c.is_ascii_digit()) { tag.to_uppercase() } else { tag.to_owned() }
    };
    let techniques: Vec<String> = alert.rule.tags.iter().filter_map(|t| t.strip_prefix("attack.")).map(technique).collect();
    pair("MITRE", &techniques.join(", "));
    pair("incident", &view.incident);
    if alert.late {
        pair("late", "the newest event came after its window had been judged");
    }
    format!("<section><h3>Why it fired</h3><p>{}</p><dl class=\"pairs\">{pairs}</dl></section>", html(&alert.rule.description))
}

fn next(view: &AlertView) -> String {
    let rule = &view.alert.rule;
    let next = rule.next.as_deref().unwrap_or("Find out whether the principal meant to do this; if not, take its access away first.");
    let mut out = format!("<section><h3>What to do</h3><p class=\"next\">{}</p>", html(next));
    if !rule.false_positives.is_empty() {
        let list: String = rule.false_positives.iter().map(|text| format!("<li>{}</li>", html(text))).collect();
        out += &format!("<h3>Harmless when</h3><ul>{list}</ul>");
    }
    out + "</section>"
}

fn events(view: &AlertView) -> String {
    let alert = &view.alert;
    if alert.events.is_empty() {
        return String::new();
    }
    let row = |e: &crate::alert::EventRef| {
        format!(
            "<tr><td class=\"mono\">{}</td><td>{}<small>{}</small></td><td class=\"mono\">{}</td></tr>",
            html(&e.time),
            html(&limit(&e.name, 200)),
            html(&limit(&e.source, 200)),
            html(&limit(&e.id, 120))
        )
    };
    let rows: String = alert.events.iter().take(SHOWN_EVENTS).map(row).collect();
    let more = alert.count.saturating_sub(alert.events.len().min(SHOWN_EVENTS) as u64);
    let more = if more > 0 { format!("<p class=\"where\">and {more} more</p>") } else { String::new() };
    format!(
        "<section class=\"events\"><h3>Events</h3><div class=\"scroll\" role=\"region\" aria-label=\"Events of the alert\" tabindex=\"0\">\
         <table><thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Event</th><th scope=\"col\">Id</th></tr></thead>\
         <tbody>{rows}</tbody></table></div>{more}</section>"
    )
}

/// Silence, acknowledge, resolve: with a script only, since they need the token.
fn acts(view: &AlertView) -> String {
    let alert = &view.alert;
    let group: serde_json::Map<_, _> = alert.group.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let scopes = [
        ("same", "this rule and group", json!({ "rules": [alert.rule.id], "group": group })),
        ("rule", "this rule", json!({ "rules": [alert.rule.id] })),
        ("account", "this rule in this account", json!({ "rules": [alert.rule.id], "accounts": [alert.account] })),
    ];
    let data: String = scopes.iter().map(|(name, _, matching)| format!(" data-{name}=\"{}\"", html(&matching.to_string()))).collect();
    let options: String = scopes.iter().map(|(name, text, _)| format!("<option value=\"{name}\">{text}</option>")).collect();
    let incident = percent(&view.incident);
    let button = |verb: &str, label: &str, said: &str| {
        format!("<button type=\"button\" data-method=\"POST\" data-path=\"/api/incidents/{incident}/{verb}\" data-said=\"{said}\">{label}</button>")
    };
    format!(
        "<div class=\"acts js\">{ack}{resolve}<form class=\"quieten\"{data}>\
         <label>Silence <select name=\"scope\">{options}</select></label>\
         <label>for <select name=\"seconds\"><option value=\"3600\">1 hour</option><option value=\"28800\">8 hours</option>\
         <option value=\"86400\">1 day</option><option value=\"604800\">7 days</option></select></label>\
         <label>because <input name=\"reason\" required maxlength=\"500\" placeholder=\"planned clean-up, ticket 42\"></label>\
         <button class=\"primary\">Silence</button></form></div>",
        ack = button("acknowledge", "Acknowledge", "Acknowledged."),
        resolve = button("resolve", "Resolve", "Resolved."),
    )
}

/// For a path segment.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte as char),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}
