//! PagerDuty, Events API v2: <https://developer.pagerduty.com/docs/events-api-v2-overview>.
//!
//! In: a notice. Out: one event on `/v2/enqueue`. Invariant: notices of one incident share a `dedup_key`, and no event is over
//! the service's limits.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Action, Notice, Secret, SendError, Shared, form,
    http::{Endpoint, EndpointError, Http},
};
use crate::alert::{
    Level,
    escape::{limit, plain},
};

/// A third of a key's rate limit as users have measured it.
pub const PACE: Duration = Duration::from_millis(125);

const SUMMARY_CHARS: usize = 1_024;
const DEDUP_KEY_CHARS: usize = 255;
const EVENT_BYTES: usize = 512_000;
/// Events listed in the details; the page has all.
const LISTED_EVENTS: usize = 20;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The integration key of the service that is to be paged: 32 characters.
    pub routing_key: Secret,
    /// The API's address; `https://events.eu.pagerduty.com` for accounts of the EU region.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

pub struct Pagerduty {
    http: Http,
    routing_key: Secret,
    enqueue: Endpoint,
    page_url: Option<String>,
}

impl Pagerduty {
    pub fn new(config: &Config, shared: &Shared) -> Result<Self, EndpointError> {
        let default = || "https://events.pagerduty.com".parse();
        let enqueue = config.endpoint.clone().map_or_else(default, Ok)?.join("/v2/enqueue")?;
        Ok(Self { http: shared.http.clone(), routing_key: config.routing_key.clone(), enqueue, page_url: shared.page_url.clone() })
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let body = event(notice, &self.routing_key, self.page_url.as_deref());
        self.http.post_json(&self.enqueue, &[], body).await?.judge().map(drop)
    }
}

fn event(notice: &Notice, routing_key: &Secret, page_url: Option<&str>) -> Vec<u8> {
    let mut event = json!({
        "routing_key": routing_key.expose(),
        "event_action": notice.action,
        "dedup_key": limit(&notice.incident, DEDUP_KEY_CHARS),
    });
    if notice.action == Action::Trigger {
        event["client"] = json!("Trailwarden");
        if let Some(url) = page_url {
            event["client_url"] = json!(url);
        }
        event["payload"] = payload(notice);
    }
    let mut body = event.to_string();
    if body.len() > EVENT_BYTES {
        event["payload"]["custom_details"] = json!({ "note": "The details were over PagerDuty's size limit; the status page has them." });
        body = event.to_string();
    }
    body.into_bytes()
}

fn payload(notice: &Notice) -> Value {
    let alert = &notice.alert;
    let mut payload = json!({
        "summary": limit(&notice.headline(), SUMMARY_CHARS),
        "source": limit(&notice.place(), SUMMARY_CHARS),
        "severity": severity(alert.rule.level),
        "timestamp": form::rfc3339(alert.time_ms),
        "class": plain(&alert.rule.title),
        "custom_details": details(notice),
    });
    if let Some(pillar) = alert.pillar() {
        payload["group"] = json!(pillar);
    }
    if let Some(service) = alert.rule.tags.iter().find_map(|t| t.strip_prefix("service.")) {
        payload["component"] = json!(service);
    }
    payload
}

fn details(notice: &Notice) -> Value {
    let alert = &notice.alert;
    let group: serde_json::Map<String, Value> = alert.group.iter().map(|(name, value)| (plain(name).into(), json!(plain(value)))).collect();
    let events = alert.events.iter().take(LISTED_EVENTS);
    let events: Vec<String> = events.map(|e| plain(&format!("{} {} {} {}", e.time, e.source, e.name, e.id)).into_owned()).collect();
    json!({
        "what to do": alert.rule.next,
        "level": notice.level(),
        "rule": alert.rule.id,
        "tags": alert.rule.tags,
        "group": group,
        "alerts": notice.alerts,
        "events": alert.count,
        "first events": events,
        "false positives": alert.rule.false_positives,
        "alert id": alert.id,
        "late": alert.late,
        "note": notice.note.as_deref().map(plain),
    })
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::High => "error",
        Level::Medium => "warning",
        Level::Low | Level::Informational => "info",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::notice, *};

    fn parsed(notice: &Notice) -> Value {
        serde_json::from_slice(&event(notice, &Secret::new("k"), None)).unwrap()
    }

    #[test]
    fn limits_of_the_service_hold() {
        let mut big = notice();
        big.alert.summary = "ä".repeat(5_000);
        big.incident = "i".repeat(400);
        big.alert.events = vec![crate::alert::EventRef { id: "x".repeat(40_000), ..big.alert.events[0].clone() }; 20];
        let body = event(&big, &Secret::new("k"), None);
        assert!(body.len() <= EVENT_BYTES);
        let event = parsed(&big);
        assert_eq!(event["payload"]["summary"].as_str().unwrap().chars().count(), SUMMARY_CHARS);
        assert_eq!(event["dedup_key"].as_str().unwrap().chars().count(), DEDUP_KEY_CHARS);
        assert!(event["payload"]["custom_details"]["note"].as_str().unwrap().contains("limit"));
    }

    #[test]
    fn a_resolve_carries_the_key_alone() {
        let mut resolve = notice();
        resolve.action = Action::Resolve;
        assert_eq!(parsed(&resolve), json!({"routing_key": "k", "event_action": "resolve", "dedup_key": resolve.incident}));
    }
}
