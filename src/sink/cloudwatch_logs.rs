//! A CloudWatch Logs stream as an archive of alerts: <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>.
//!
//! In: notices. Out: batches of events in the order of time. Invariant: a batch is within 10,000 events and 1,048,576 bytes
//! (26 more an event), and an event within 256 KB.

use aws_sdk_cloudwatchlogs::{Client, error::ProvideErrorMetadata, types::InputLogEvent};
use serde::Deserialize;

use super::{Notice, SendError, Shared, form::Form, sns};
use crate::aws;

pub const BATCH_EVENTS: usize = 1_000;

const BATCH_BYTES: usize = 1_048_576;
const EVENT_OVERHEAD_BYTES: usize = 26;
const EVENT_BYTES: usize = 256_000;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The log group's name.
    pub log_group: String,
    /// Made when it is missing, like the group.
    #[serde(default = "default_stream")]
    pub log_stream: String,
    /// AWS region; by default that of the environment, profile or instance.
    #[serde(default)]
    pub region: Option<String>,
    /// `json` (default), `ocsf` or `text`.
    #[serde(default)]
    pub form: Form,
    /// Another endpoint, as for a test.
    #[serde(default)]
    pub endpoint: Option<String>,
}

fn default_stream() -> String {
    "trailwarden".into()
}

pub struct CloudwatchLogs {
    client: Client,
    config: Config,
}

impl CloudwatchLogs {
    pub async fn new(config: &Config, _shared: &Shared) -> Self {
        let client = Client::new(&aws::load(config.region.as_deref(), config.endpoint.as_deref()).await);
        Self { client, config: config.clone() }
    }

    /// Events carry the time of sending: the service refuses old ones, and an archive must not lose an alert about the past.
    pub async fn send(&self, notices: &[Notice], now_ms: i64) -> Result<(), SendError> {
        let messages: Vec<String> = notices.iter().map(|n| self.config.form.render(n, EVENT_BYTES)).collect();
        for batch in batches(messages) {
            if let Err(error) = self.put(&batch, now_ms).await {
                if !error.1 {
                    return Err(error.0);
                }
                self.create().await?;
                self.put(&batch, now_ms).await.map_err(|again| again.0)?;
            }
        }
        Ok(())
    }

    /// On failure: why, and whether the group or stream is missing.
    async fn put(&self, messages: &[String], now_ms: i64) -> Result<(), (SendError, bool)> {
        let mut put = self.client.put_log_events().log_group_name(&self.config.log_group).log_stream_name(&self.config.log_stream);
        for message in messages {
            let event = InputLogEvent::builder().timestamp(now_ms).message(message).build();
            put = put.log_events(event.map_err(|_| (SendError::refused("an event lacks its time or text"), false))?);
        }
        let done = put.send().await.map_err(|error| {
            let missing = error.code() == Some("ResourceNotFoundException");
            (sns::judge(error.code(), error.raw_response().map(|r| r.status().as_u16())), missing)
        })?;
        match done.rejected_log_events_info() {
            // Only a clock that is wrong by hours or a retention of less than a day gets here.
            Some(rejected) => Err((SendError::refused(format!("events were rejected as too old or too new: {rejected:?}")), false)),
            None => Ok(()),
        }
    }

    async fn create(&self) -> Result<(), SendError> {
        let status = |raw: Option<u16>, code: Option<&str>| match code {
            Some("ResourceAlreadyExistsException") => Ok(()),
            _ => Err(sns::judge(code, raw)),
        };
        if let Err(e) = self.client.create_log_group().log_group_name(&self.config.log_group).send().await {
            status(e.raw_response().map(|r| r.status().as_u16()), e.code())?;
        }
        let stream = self.client.create_log_stream().log_group_name(&self.config.log_group).log_stream_name(&self.config.log_stream);
        if let Err(e) = stream.send().await {
            status(e.raw_response().map(|r| r.status().as_u16()), e.code())?;
        }
        Ok(())
    }
}

fn batches(messages: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for message in messages {
        let size = message.len() + EVENT_OVERHEAD_BYTES;
        match batches.last_mut() {
            Some(last) if bytes + size <= BATCH_BYTES && last.len() < BATCH_EVENTS => last.push(message),
            _ => {
                batches.push(vec![message]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_the_limits_and_lose_nothing() {
        for (count, size) in [(0, 10), (1, 10), (2_500, 10), (9, 250_000), (5, 262_118), (4, 262_119)] {
            let made = batches(vec!["x".repeat(size); count]);
            assert_eq!(made.iter().map(Vec::len).sum::<usize>(), count);
            for batch in made {
                assert!(batch.len() <= BATCH_EVENTS);
                assert!(batch.iter().map(|m| m.len() + EVENT_OVERHEAD_BYTES).sum::<usize>() <= BATCH_BYTES);
            }
        }
    }
}
