//! What a person may set about the streams.
//!
//! In: the `kinesis` section of the configuration. Out: `Config`. Invariant: a value that parses can be run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::position::Position;

/// The `kinesis` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of the data streams to read. At least one in `run`.
    pub streams: Vec<String>,
    /// AWS region; by default that of the environment, profile or instance.
    pub region: Option<String>,
    /// URL of another endpoint than AWS's: a VPC endpoint, an emulator.
    pub endpoint: Option<String>,
    /// `polling` shares 2 MB/s and 5 reads/s of each shard with the stream's other consumers; `fan_out` has 2 MB/s of its
    /// own, at AWS's price for enhanced fan-out.
    pub mode: Mode,
    /// The consumer's name that `fan_out` registers.
    pub fan_out_consumer: String,
    /// Where a stream begins that was never read: `latest`, `trim_horizon`, or a time such as `2026-05-04T12:00:00Z`.
    pub start: Start,
    /// Polling asks a quiet shard this often, in milliseconds (200 to 60000), and one that has just given records twice as
    /// often. Raise it where several other consumers poll the stream: a shard has five reads a second for all.
    #[serde(deserialize_with = "poll_interval")]
    #[schemars(range(min = 200, max = 60_000))]
    pub poll_interval_ms: u64,
    /// What polling takes of a shard in bytes a second; AWS gives 2 MB.
    pub shard_bytes_per_s: u64,
    /// Memory for records between the stream and the detectors, in bytes. One read may need 24 MB: with less only one shard
    /// is asked at a time.
    pub budget_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            region: None,
            endpoint: None,
            mode: Mode::Polling,
            fan_out_consumer: "trailwarden".to_owned(),
            start: Start(Position::Latest),
            poll_interval_ms: 1000,
            shard_bytes_per_s: 2_000_000,
            budget_bytes: 128 << 20,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Polling,
    FanOut,
}

/// Where a new stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Start(pub Position);

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(Self(match text.as_str() {
            "latest" => Position::Latest,
            "trim_horizon" => Position::TrimHorizon,
            time => {
                let parsed: Timestamp =
                    time.parse().map_err(|_| format!("`{time}` is not `latest`, `trim_horizon` or a time such as 2026-05-04T12:00:00Z"))?;
                Position::AtTimestamp(u64::try_from(parsed.as_millisecond()).map_err(|_| format!("`{time}` is before 1970"))?)
            }
        }))
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        match start.0 {
            Position::TrimHorizon => "trim_horizon".to_owned(),
            Position::AtTimestamp(ms) => Timestamp::from_millisecond(ms as i64).map(|t| t.to_string()).unwrap_or_default(),
            _ => "latest".to_owned(),
        }
    }
}

fn poll_interval<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let ms = u64::deserialize(deserializer)?;
    if !(200..=60_000).contains(&ms) {
        return Err(serde::de::Error::custom(format!("poll_interval_ms {ms} is not within 200 and 60000")));
    }
    Ok(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_when_parsed() {
        for (json, expected) in [
            (r#"{"streams":["a"],"start":"trim_horizon"}"#, Ok(Position::TrimHorizon)),
            (r#"{"start":"2026-05-04T12:00:00Z","mode":"fan_out"}"#, Ok(Position::AtTimestamp(1_777_896_000_000))),
            (r#"{"start":"yesterday"}"#, Err("`yesterday` is not `latest`")),
            (r#"{"stream":"a"}"#, Err("unknown field `stream`")),
            (r#"{"poll_interval_ms":5}"#, Err("not within 200")),
        ] {
            match (serde_json::from_str::<Config>(json), expected) {
                (Ok(config), Ok(start)) => {
                    assert_eq!(config.start.0, start);
                    let text = serde_json::to_string(&config).unwrap();
                    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        }
    }
}
