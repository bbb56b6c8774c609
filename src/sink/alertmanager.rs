//! Prometheus Alertmanager, API v2: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>.
//!
//! In: notices, again and again while their incident lasts. Out: arrays of alerts to every replica. Invariant: an incident's
//! labels never change, so that its resolve finds it; no label holds a time or an event's id.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Action, Notice, Secret, SendError, Shared, form,
    http::{Endpoint, EndpointError, Http},
};
use crate::alert::escape::{label, limit, plain};

pub const BATCH: usize = 64;

const LABEL_CHARS: usize = 256;
const ANNOTATION_CHARS: usize = 2_000;
/// Group-by names that become labels.
const GROUP_LABELS: usize = 8;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Every replica's address, `http://alertmanager-0:9093`; http is allowed where no token is sent.
    pub urls: Vec<Secret>,
    /// Sent as `Authorization: Bearer …`, over https only.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// How often an incident that lasts is told again; below Alertmanager's `resolve_timeout`.
    #[serde(default = "default_reassert_seconds")]
    pub reassert_seconds: u64,
    /// A deed has no end of its own: it is told for so long, then resolved.
    #[serde(default = "default_hold_seconds")]
    pub hold_seconds: u64,
}

fn default_reassert_seconds() -> u64 {
    60
}

fn default_hold_seconds() -> u64 {
    24 * 3600
}

/// How a sink without memory is kept up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reassert {
    pub every: Duration,
    pub hold: Duration,
}

pub struct Alertmanager {
    http: Http,
    replicas: Vec<Endpoint>,
    authorization: Option<HeaderValue>,
    reassert: Reassert,
    page_url: Option<String>,
}

impl Alertmanager {
    pub fn new(config: &Config, shared: &Shared) -> Result<Self, EndpointError> {
        let parse = |url: &Secret| match config.bearer_token {
            Some(_) => url.expose().parse::<Endpoint>()?.join("/api/v2/alerts"),
            None => Endpoint::from_any(url.expose())?.join("/api/v2/alerts"),
        };
        let replicas = config.urls.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if replicas.is_empty() {
            return Err(EndpointError::Malformed);
        }
        let bearer = |token: &Secret| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| EndpointError::Malformed)?;
            value.set_sensitive(true);
            Ok::<_, EndpointError>(value)
        };
        Ok(Self {
            http: shared.http.clone(),
            replicas,
            authorization: config.bearer_token.as_ref().map(bearer).transpose()?,
            reassert: Reassert { every: Duration::from_secs(config.reassert_seconds.max(1)), hold: Duration::from_secs(config.hold_seconds) },
            page_url: shared.page_url.clone(),
        })
    }

    pub fn reassert(&self) -> Reassert {
        self.reassert
    }

    /// Taken when one replica has taken them: the others learn by gossip, and by the next assertion.
    pub async fn send(&self, notices: &[Notice], now_ms: i64) -> Result<(), SendError> {
        let alerts: Vec<Value> = notices.iter().map(|n| self.alert(n, now_ms)).collect();
        let body = Value::Array(alerts).to_string();
        let headers: Vec<(HeaderName, HeaderValue)> = self.authorization.iter().map(|v| (http::header::AUTHORIZATION, v.clone())).collect();
        let mut first_error = None;
        let mut taken = false;
        for replica in &self.replicas {
            match self.http.post_json(replica, &headers, body.clone().into_bytes()).await.and_then(super::http::Answer::judge) {
                Ok(_) => taken = true,
                // A wish to try again is worth more than a refusal: another replica may be newer.
                Err(error) if error.is_retryable() => first_error = Some(error),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        if taken { Ok(()) } else { Err(first_error.unwrap_or_else(|| SendError::retry("no replica is configured"))) }
    }

    fn alert(&self, notice: &Notice, now_ms: i64) -> Value {
        let lasts = i64::try_from(self.reassert.every.as_millis()).unwrap_or(i64::MAX / 8).saturating_mul(4);
        let ends_ms = if notice.action == Action::Resolve { now_ms } else { now_ms.saturating_add(lasts) };
        let mut alert = json!({
            "labels": labels(notice),
            "annotations": annotations(notice),
            // Alertmanager refuses a start behind the end.
            "startsAt": form::rfc3339(notice.opened_ms.min(ends_ms)),
            "endsAt": form::rfc3339(ends_ms),
        });
        if let Some(url) = &self.page_url {
            alert["generatorURL"] = json!(url);
        }
        alert
    }
}

fn labels(notice: &Notice) -> Map<String, Value> {
    let alert = &notice.alert;
    let mut labels = Map::new();
    let mut add = |name: &str, value: &str| {
        let value = label(value, LABEL_CHARS);
        if !value.is_empty() {
            labels.entry(name).or_insert(json!(value));
        }
    };
    add("alertname", &alert.rule.title);
    add("rule", &alert.rule.id);
    add("severity", notice.level());
    add("account", &alert.account);
    add("region", &alert.region);
    add("pillar", alert.pillar().unwrap_or_default());
    if notice.storm {
        add("storm", "true");
    } else {
        alert.group.iter().take(GROUP_LABELS).for_each(|(name, value)| add(&label_name(name), value));
    }
    if notice.test {
        add("test", "true");
    }
    // Without a group the rest would be the same for every incident of the rule.
    if alert.group.is_empty() {
        add("incident", &limit(&notice.incident, 12));
    }
    labels
}

fn annotations(notice: &Notice) -> Map<String, Value> {
    let alert = &notice.alert;
    let mut annotations = Map::new();
    for (name, value) in [
        ("summary", notice.headline()),
        ("description", alert.rule.description.clone()),
        ("next", alert.rule.next.clone().unwrap_or_default()),
        ("account_name", notice.account_name.clone().unwrap_or_default()),
        ("alerts", notice.alerts.to_string()),
        ("events", alert.count.to_string()),
        ("alert_id", alert.id.clone()),
        ("note", notice.note.clone().unwrap_or_default()),
    ] {
        if !value.is_empty() {
            annotations.insert(name.into(), json!(limit(&plain(&value), ANNOTATION_CHARS)));
        }
    }
    annotations
}

/// `userIdentity.arn` → `group_userIdentity_arn`.
fn label_name(field: &str) -> String {
    let safe: String = field.chars().take(80).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("group_{safe}")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::notice, *};

    #[test]
    fn growth_changes_no_label() {
        let first = notice();
        let mut grown = first.clone();
        grown.alert.id = "f".repeat(32);
        grown.alert.time_ms += 60_000;
        grown.alert.count = 99;
        grown.alert.summary = "more".into();
        grown.alerts = 7;
        grown.action = Action::Resolve;
        assert_eq!(labels(&first), labels(&grown));
    }

    #[test]
    fn labels_are_named_as_prometheus_wants() {
        assert_eq!(label_name("requestParameters.dBSnapshot-Id[]"), "group_requestParameters_dBSnapshot_Id__");
        let labels = labels(&notice());
        assert_eq!(labels["group_sourceIPAddress"], "203.0.113.7");
        assert!(!labels.contains_key("incident"));
    }
}
