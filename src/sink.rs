//! Destinations of alerts: what each takes, how it says no, and how text is made harmless for it.
//!
//! In: notices, redacted and not escaped. Out: requests and lines; accepted, to be retried, or refused for good. Invariant: a
//! sink holds its service's limits by cutting what can be cut, never by dropping a notice.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, escape, level_word};

pub mod alertmanager;
pub mod cloudwatch_logs;
pub mod file;
pub mod form;
pub mod http;
pub mod pagerduty;
mod secret;
pub mod slack;
pub mod sns;
pub mod webhook;

pub use secret::Secret;

/// One destination. Exactly one key, which names its kind.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Config {
    /// PagerDuty, Events API v2.
    Pagerduty(pagerduty::Config),
    /// Prometheus Alertmanager, API v2.
    Alertmanager(alertmanager::Config),
    /// A Slack incoming webhook.
    Slack(slack::Config),
    /// Any HTTP endpoint, signed.
    Webhook(webhook::Config),
    /// An SNS topic.
    Sns(sns::Config),
    /// A CloudWatch Logs stream, as an archive of alerts.
    CloudwatchLogs(cloudwatch_logs::Config),
    /// A file of lines.
    File(file::Config),
    /// Lines on standard output.
    Stdout(file::StdoutConfig),
}

/// What a sink is to do about an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Trigger,
    Acknowledge,
    Resolve,
}

/// What a sink is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub action: Action,
    /// PagerDuty's `dedup_key`: one page for all notices that share it.
    pub incident: String,
    /// The newest alert of the incident.
    pub alert: Alert,
    /// Exactly how many alerts the notice stands for.
    pub alerts: u64,
    /// When the incident opened, in milliseconds since the epoch.
    pub opened_ms: i64,
    /// How the config calls the account.
    #[serde(default)]
    pub account_name: Option<String>,
    /// Stands for further incidents of a rule that fires in a storm.
    #[serde(default)]
    pub storm: bool,
    /// A person tries whether the pager rings.
    #[serde(default)]
    pub test: bool,
    /// Why it comes this way: another sink refused it or is down.
    #[serde(default)]
    pub note: Option<String>,
}

/// Why a notice was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// `after`: the service's own wish. `answered`: its status, 0 where there was no answer.
    #[error("{why}")]
    Retry { why: String, after: Option<Duration>, answered: u16 },
    #[error("{why}")]
    Refused { why: String },
}

impl SendError {
    pub fn retry(why: impl Into<String>) -> Self {
        Self::Retry { why: why.into(), after: None, answered: 0 }
    }

    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused { why: why.into() }
    }

    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retry { .. })
    }
}

/// Why a sink can't be made from its config.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("sink `{sink}`: {key}: {detail}")]
    Config { sink: String, key: &'static str, detail: String },
}

/// What sinks share, and how AWS clients are made.
pub struct Shared {
    pub http: http::Http,
    /// Where a person finds the status page; links in notices lead there.
    pub page_url: Option<String>,
}

pub enum Kind {
    Pagerduty(pagerduty::Pagerduty),
    Alertmanager(alertmanager::Alertmanager),
    Slack(slack::Slack),
    Webhook(webhook::Webhook),
    Sns(sns::Sns),
    CloudwatchLogs(cloudwatch_logs::CloudwatchLogs),
    File(file::File),
    Stdout(file::Stdout),
}

/// One destination, ready.
pub struct Sink {
    pub name: Arc<str>,
    kind: Kind,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("name", &self.name).field("kind", &self.kind_word()).finish()
    }
}

impl Sink {
    pub async fn open(name: &str, config: &Config, shared: &Shared) -> Result<Self, SinkError> {
        let wrong = |key: &'static str, detail: String| SinkError::Config { sink: name.to_owned(), key, detail };
        let kind = match config {
            Config::Pagerduty(c) => Kind::Pagerduty(pagerduty::Pagerduty::new(c, shared).map_err(|e| wrong("pagerduty.endpoint", e.to_string()))?),
            Config::Alertmanager(c) => {
                Kind::Alertmanager(alertmanager::Alertmanager::new(c, shared).map_err(|e| wrong("alertmanager.urls", e.to_string()))?)
            }
            Config::Slack(c) => Kind::Slack(slack::Slack::new(c, shared)),
            Config::Webhook(c) => Kind::Webhook(webhook::Webhook::new(c, shared).map_err(|e| wrong("webhook.headers", e))?),
            Config::Sns(c) => Kind::Sns(sns::Sns::new(c, shared).await.map_err(|e| wrong("sns.topic_arn", e))?),
            Config::CloudwatchLogs(c) => Kind::CloudwatchLogs(cloudwatch_logs::CloudwatchLogs::new(c, shared).await),
            Config::File(c) => Kind::File(file::File::new(c)),
            Config::Stdout(c) => Kind::Stdout(file::Stdout::new(c)),
        };
        Ok(Self { name: name.into(), kind })
    }

    /// What `open` would refuse, without a network or credentials.
    ///
    /// # Errors
    /// A key that does not fit, with the sink's name.
    pub fn check(name: &str, config: &Config) -> Result<(), SinkError> {
        let wrong = |key: &'static str, detail: String| SinkError::Config { sink: name.to_owned(), key, detail };
        let shared = Shared { http: http::Http::new(), page_url: None };
        match config {
            Config::Pagerduty(c) => pagerduty::Pagerduty::new(c, &shared).map(drop).map_err(|e| wrong("pagerduty.endpoint", e.to_string())),
            Config::Alertmanager(c) => alertmanager::Alertmanager::new(c, &shared).map(drop).map_err(|e| wrong("alertmanager.urls", e.to_string())),
            Config::Webhook(c) => webhook::Webhook::new(c, &shared).map(drop).map_err(|e| wrong("webhook.headers", e)),
            Config::Sns(c) => sns::region(&c.topic_arn).map(drop).map_err(|e| wrong("sns.topic_arn", e)),
            Config::Slack(_) | Config::CloudwatchLogs(_) | Config::File(_) | Config::Stdout(_) => Ok(()),
        }
    }

    pub fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::Pagerduty(_) => "pagerduty",
            Kind::Alertmanager(_) => "alertmanager",
            Kind::Slack(_) => "slack",
            Kind::Webhook(_) => "webhook",
            Kind::Sns(_) => "sns",
            Kind::CloudwatchLogs(_) => "cloudwatch_logs",
            Kind::File(_) => "file",
            Kind::Stdout(_) => "stdout",
        }
    }

    /// Takes every alert by itself, ungrouped and silenced ones too: a record rather than a call.
    pub fn is_archive(&self) -> bool {
        matches!(self.kind, Kind::CloudwatchLogs(_) | Kind::File(_) | Kind::Stdout(_))
    }

    /// How often incidents that last are told again, and for how long; `None` where once is enough.
    pub fn reassert(&self) -> Option<alertmanager::Reassert> {
        match &self.kind {
            Kind::Alertmanager(sink) => Some(sink.reassert()),
            _ => None,
        }
    }

    /// Notices that one `send` takes at most.
    pub fn max_batch(&self) -> usize {
        match self.kind {
            Kind::Pagerduty(_) | Kind::Slack(_) | Kind::Webhook(_) | Kind::Sns(_) => 1,
            Kind::Alertmanager(_) => alertmanager::BATCH,
            Kind::CloudwatchLogs(_) => cloudwatch_logs::BATCH_EVENTS,
            Kind::File(_) | Kind::Stdout(_) => 1_000,
        }
    }

    /// The least time between two requests that the service asks for.
    pub fn pace(&self) -> Duration {
        match self.kind {
            Kind::Slack(_) => slack::PACE,
            Kind::Pagerduty(_) => pagerduty::PACE,
            _ => Duration::ZERO,
        }
    }

    /// Sends one to `max_batch` notices: all are taken or none counts as taken.
    pub async fn send(&self, notices: &[Notice], now_ms: i64) -> Result<(), SendError> {
        match &self.kind {
            Kind::Alertmanager(sink) => sink.send(notices, now_ms).await,
            Kind::CloudwatchLogs(sink) => sink.send(notices, now_ms).await,
            Kind::File(sink) => sink.send(notices).await,
            Kind::Stdout(sink) => sink.send(notices),
            Kind::Pagerduty(_) | Kind::Slack(_) | Kind::Webhook(_) | Kind::Sns(_) => {
                for notice in notices {
                    self.send_one(notice, now_ms).await?;
                }
                Ok(())
            }
        }
    }

    async fn send_one(&self, notice: &Notice, now_ms: i64) -> Result<(), SendError> {
        match &self.kind {
            Kind::Pagerduty(sink) => sink.send(notice).await,
            Kind::Slack(sink) => sink.send(notice).await,
            Kind::Webhook(sink) => sink.send(notice, now_ms).await,
            Kind::Sns(sink) => sink.send(notice).await,
            _ => Ok(()),
        }
    }
}

impl Notice {
    /// A notice about one alert.
    pub fn trigger(alert: Alert) -> Self {
        let (incident, opened_ms) = (alert.incident.clone(), alert.time_ms);
        Self { action: Action::Trigger, incident, alert, alerts: 1, opened_ms, account_name: None, storm: false, test: false, note: None }
    }

    /// `Snapshots purged: user mallory deleted 12 snapshots…`, one plain line, not escaped for any medium.
    pub fn headline(&self) -> String {
        let alert = &self.alert;
        let mark = match (self.test, self.action) {
            (true, _) => "TEST ALERT: ",
            (false, Action::Resolve) => "Resolved: ",
            (false, Action::Acknowledge) => "Acknowledged: ",
            (false, Action::Trigger) => "",
        };
        let text = if self.storm {
            format!("{mark}{}: storm, {} more alerts of this rule; newest: {}", alert.rule.title, self.alerts, alert.summary)
        } else if alert.summary.is_empty() {
            format!("{mark}{}", alert.rule.title)
        } else {
            format!("{mark}{}: {}", alert.rule.title, alert.summary)
        };
        escape::plain(&text).into_owned()
    }

    /// `production (111122223333) eu-west-1`
    pub fn place(&self) -> String {
        let account = match &self.account_name {
            Some(name) => format!("{name} ({})", self.alert.account),
            None => self.alert.account.clone(),
        };
        let place = [account.as_str(), self.alert.region.as_str()].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ");
        let place = if place.is_empty() { "unknown account".to_owned() } else { place };
        escape::plain(&place).into_owned()
    }

    pub fn level(&self) -> &'static str {
        level_word(self.alert.rule.level)
    }
}

#[cfg(test)]
mod tests;
