//! A Slack incoming webhook: <https://api.slack.com/messaging/webhooks>.
//!
//! In: a notice. Out: one message of blocks. Invariant: nothing that a log says can mention people, link, or format; the
//! message is far below the size at which the service really refuses (about 13,200 characters of blocks).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Action, Notice, SendError, Shared, form,
    http::{Endpoint, Http},
};
use crate::alert::{
    Level,
    escape::{limit, slack},
};

/// One message a second and channel.
pub const PACE: Duration = Duration::from_secs(1);

const HEADER_CHARS: usize = 150;
const SECTION_CHARS: usize = 2_900;
const FIELD_CHARS: usize = 400;
const FIELDS: usize = 8;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The webhook's address, itself a secret.
    pub url: Endpoint,
}

pub struct Slack {
    http: Http,
    url: Endpoint,
    page_url: Option<String>,
}

impl Slack {
    pub fn new(config: &Config, shared: &Shared) -> Self {
        Self { http: shared.http.clone(), url: config.url.clone(), page_url: shared.page_url.clone() }
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let body = message(notice, self.page_url.as_deref()).to_string();
        let answer = self.http.post_json(&self.url, &[], body.into_bytes()).await?.judge()?;
        // A proxy or sign-in page in between answers 200 too.
        if answer.text.trim() == "ok" { Ok(()) } else { Err(SendError::refused("answered 200, but not with Slack's `ok`")) }
    }
}

fn message(notice: &Notice, page_url: Option<&str>) -> Value {
    let alert = &notice.alert;
    let word = if notice.action == Action::Resolve { "RESOLVED".to_owned() } else { notice.level().to_uppercase() };
    let title = format!("{} {word} {}{}", emoji(notice), if notice.test { "TEST ALERT: " } else { "" }, alert.rule.title);
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": limit(&crate::alert::escape::plain(&title), HEADER_CHARS) } }),
        section(&slack(&limit(&notice.headline(), SECTION_CHARS / 2))),
        json!({ "type": "section", "fields": fields(notice) }),
    ];
    if let Some(next) = alert.rule.next.as_deref().filter(|_| notice.action == Action::Trigger) {
        blocks.push(section(&format!("*Next:* {}", slack(&limit(next, SECTION_CHARS / 2)))));
    }
    let mut foot = format!("{} · rule {} · incident {}", form::rfc3339(alert.time_ms), slack(&alert.rule.id), slack(&limit(&notice.incident, 64)));
    if let Some(note) = &notice.note {
        foot.push_str(&format!(" · {}", slack(&limit(note, FIELD_CHARS))));
    }
    if let Some(url) = page_url {
        foot.push_str(&format!(" · <{url}|status page>"));
    }
    blocks.push(json!({ "type": "context", "elements": [mrkdwn(&foot)] }));
    json!({
        "text": slack(&limit(&format!("{word} {}", notice.headline()), SECTION_CHARS / 2)),
        "parse": "none",
        "link_names": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "attachments": [{ "color": color(notice), "blocks": blocks }],
    })
}

fn fields(notice: &Notice) -> Vec<Value> {
    let alert = &notice.alert;
    let mut fields = vec![field("Where", &notice.place())];
    fields.extend(alert.group.iter().take(FIELDS - 3).map(|(name, value)| field(name, value)));
    fields.push(field("Events", &alert.count.to_string()));
    if notice.alerts > 1 {
        fields.push(field("Alerts", &notice.alerts.to_string()));
    }
    fields
}

fn field(name: &str, value: &str) -> Value {
    mrkdwn(&format!("*{}*\n{}", slack(&limit(name, 80)), slack(&limit(value, FIELD_CHARS))))
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

/// `verbatim` keeps bare addresses, channel names and mentions as text.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": limit(text, SECTION_CHARS), "verbatim": true })
}

fn emoji(notice: &Notice) -> &'static str {
    match (notice.action, notice.alert.rule.level) {
        (Action::Resolve, _) => "✅",
        (_, Level::Critical) => "🚨",
        (_, Level::High) => "🔴",
        (_, Level::Medium) => "🟠",
        _ => "🔵",
    }
}

fn color(notice: &Notice) -> &'static str {
    match (notice.action, notice.alert.rule.level) {
        (Action::Resolve, _) => "#2e7d32",
        (_, Level::Critical) => "#b3122b",
        (_, Level::High) => "#d9480f",
        (_, Level::Medium) => "#e8a100",
        _ => "#3b6fb6",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::notice, *};

    #[test]
    fn the_largest_message_stays_below_the_real_limit() {
        let mut big = notice();
        big.alert.summary = "<!channel> & ".repeat(2_000);
        big.alert.group = vec![("g".repeat(300), "<v>".repeat(3_000)); 30];
        big.note = Some("n".repeat(5_000));
        let message = message(&big, Some("https://status.example/"));
        let blocks = message["attachments"][0]["blocks"].as_array().unwrap();
        assert!(serde_json::to_string(blocks).unwrap().chars().count() < 13_200);
        assert!(blocks.len() <= 50);
        for block in blocks {
            assert!(block["text"]["text"].as_str().unwrap_or_default().chars().count() <= 3_000);
        }
    }
}
