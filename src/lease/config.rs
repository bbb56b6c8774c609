//! What a person may set about the fleet.
//!
//! In: the `leases` section of the configuration. Out: `Config`. Invariant: all times follow from the failover time unless
//! named.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use serde::{Deserialize, Serialize};

/// The `leases` section. Without it one process reads the streams alone and DynamoDB is not used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The application's name: that of its lease table. `NAME-CoordinatorState` and `NAME-WorkerMetricStats` stand beside it.
    pub table: String,
    /// AWS region; by default that of the environment, profile or instance.
    #[serde(default)]
    pub region: Option<String>,
    /// URL of another DynamoDB endpoint than AWS's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// A worker that has not renewed a lease for this long, in milliseconds, has lost it. From 1000 to 600000: a lease is renewed
    /// three times within it, and a call that is slower than that loses it.
    #[serde(default = "failover_ms")]
    pub failover_ms: u64,
    /// This worker's name; by default one is made of the host's name and a random number. Never give two workers the same.
    #[serde(default)]
    pub worker: Option<String>,
    /// At most this many shards for one worker.
    #[serde(default = "max_leases")]
    pub max_leases: usize,
}

const STATE_ATTEMPT: Duration = Duration::from_secs(10);
const FAILOVER_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;

const fn failover_ms() -> u64 {
    10_000
}

const fn max_leases() -> usize {
    100_000
}

impl Config {
    pub fn new(table: impl Into<String>) -> Self {
        let (failover_ms, max_leases) = (failover_ms(), max_leases());
        Self { table: table.into(), region: None, endpoint: None, failover_ms, worker: None, max_leases }
    }

    /// # Errors
    /// Numbers with which leases would be lost for no reason, or never.
    pub fn check(&self) -> Result<(), String> {
        if FAILOVER_MS.contains(&self.failover_ms) {
            return Ok(());
        }
        let (least, most) = (FAILOVER_MS.start(), FAILOVER_MS.end());
        Err(format!(
            "`leases.failover_ms` is {}: less than {least} loses leases to a slow call, more than {most} leaves shards unread for long",
            self.failover_ms
        ))
    }

    /// The client for the tables of leases. A call that hangs must not cost them.
    pub async fn client(&self) -> aws_sdk_dynamodb::Client {
        self.patient(self.renew_interval().max(Duration::from_secs(1))).await
    }

    /// The client for the fleet's state: megabytes a call, and no lease waits for it.
    pub async fn state_client(&self) -> aws_sdk_dynamodb::Client {
        self.patient(STATE_ATTEMPT).await
    }

    async fn patient(&self, attempt: Duration) -> aws_sdk_dynamodb::Client {
        let shared = crate::aws::load(self.region.as_deref(), self.endpoint.as_deref()).await;
        let timeouts = TimeoutConfig::builder().connect_timeout(attempt).operation_attempt_timeout(attempt).build();
        aws_sdk_dynamodb::Client::from_conf(aws_sdk_dynamodb::config::Builder::from(&shared).timeout_config(timeouts).build())
    }

    pub fn failover(&self) -> Duration {
        Duration::from_millis(self.failover_ms.max(*FAILOVER_MS.start()))
    }

    pub fn renew_interval(&self) -> Duration {
        self.failover() / 3
    }

    /// From one look at the table to the next: what others give up is taken within this.
    pub fn tick(&self) -> Duration {
        (self.failover() / 4).min(Duration::from_millis(500))
    }

    pub fn beat_interval(&self) -> Duration {
        self.failover().min(Duration::from_secs(10))
    }

    pub fn leader_lease(&self) -> Duration {
        self.failover() * 3
    }

    /// Children are made at a shard's end; this finds what was missed.
    pub fn sync_interval(&self) -> Duration {
        self.failover() * 6
    }

    /// How long a lease stays with whoever has just got it.
    pub fn settle(&self) -> Duration {
        self.failover() * 2
    }

    /// How long the lease of a shard that is over is kept: whoever still acts on an older look must find it, and not make it anew.
    pub fn linger(&self) -> Duration {
        self.failover() * 10
    }
}
