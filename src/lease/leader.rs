//! One worker leads: it lists shards, audits, cleans up and balances. The lock is a row as the Kinesis Client Library's
//! lock client writes it.
//!
//! In: ticks. Out: whether this worker leads now. Invariant: a lock whose version has not moved for its whole lease, by this
//! machine's clock, is free, however its holder ended.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use super::{
    row::{Item, n, s},
    table::{Table, TableError, Update, Written},
};

const KEY: &str = "key";
const LEADER: &str = "Leader";

/// This worker's view of the lock.
#[derive(Debug)]
pub struct Leader {
    table: Table,
    worker: String,
    lease: Duration,
    /// The version that this worker has written, while it leads.
    held: Option<(String, Instant)>,
    /// Another's version, and since when it stands.
    seen: Option<(String, Instant)>,
}

fn fresh_version() -> String {
    let random = || RandomState::new().hash_one(0);
    let (a, b) = (random(), random());
    format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 48 & 0x3fff | 0x8000, b & 0xffff_ffff_ffff)
}

fn text(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

impl Leader {
    /// `table` is `<application>-CoordinatorState`.
    pub fn new(table: Table, worker: &str, lease: Duration) -> Self {
        Self { table, worker: worker.to_owned(), lease, held: None, seen: None }
    }

    /// Takes or keeps the lock. Leading ends at the latest when the lease has run out unrenewed.
    pub async fn lead(&mut self) -> Result<bool, TableError> {
        if let Some((version, since)) = &self.held {
            if since.elapsed() < self.lease / 4 {
                return Ok(true);
            }
            let outcome = self.write("recordVersionNumber = :old AND ownerName = :me", Some(&version.clone())).await;
            if matches!(outcome, Ok(false)) || self.held.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.lease) {
                self.held = None;
            }
            return outcome;
        }
        let item = self.table.get((KEY, LEADER)).await?;
        let version = item.as_ref().and_then(|i| text(i, "recordVersionNumber"));
        match (item, version) {
            (None, _) => self.write("attribute_not_exists(ownerName)", None).await,
            (Some(item), Some(version)) if item.contains_key("isReleased") => self.write("recordVersionNumber = :old", Some(&version)).await,
            (Some(item), Some(version)) => {
                let since = match &self.seen {
                    Some((known, since)) if *known == version => *since,
                    _ => Instant::now(),
                };
                self.seen = Some((version.clone(), since));
                let lease = text(&item, "leaseDuration").and_then(|ms| ms.parse().ok()).map_or(self.lease, Duration::from_millis);
                if since.elapsed() <= lease {
                    return Ok(false);
                }
                tracing::warn!(owner = text(&item, "ownerName"), "the leader's lock has not moved for {lease:?}: it is taken over");
                self.write("recordVersionNumber = :old", Some(&version)).await
            }
            // Not a lock that we know how to read.
            (Some(_), None) => Ok(false),
        }
    }

    pub fn is_leading(&self) -> bool {
        self.held.is_some()
    }

    async fn write(&mut self, condition: &str, old: Option<&str>) -> Result<bool, TableError> {
        let version = fresh_version();
        let mut update = Update::new((KEY, LEADER), condition)
            .set("ownerName", s(&self.worker))
            .set("leaseDuration", s(self.lease.as_millis().to_string()))
            .set("recordVersionNumber", s(&version))
            .remove(&["isReleased"]);
        if let Some(old) = old {
            update = update.value(":old", s(old));
        }
        if condition.contains(":me") {
            update = update.value(":me", s(&self.worker));
        }
        let written = matches!(self.table.update(update).await?, Written::Done(_));
        if written {
            if self.held.is_none() {
                tracing::info!(worker = self.worker, "leads the application");
            }
            self.held = Some((version, Instant::now()));
        }
        Ok(written)
    }

    /// Gives the lock up, so that another leads at once.
    pub async fn release(&mut self) -> Result<(), TableError> {
        if let Some((version, _)) = self.held.take() {
            self.table.delete((KEY, LEADER), Some(("recordVersionNumber = :old", ":old", s(version)))).await?;
        }
        Ok(())
    }
}

/// The workers' rows in `<application>-WorkerMetricStats`: who is alive.
pub mod workers {
    use std::collections::{BTreeMap, BTreeSet};

    use aws_sdk_dynamodb::types::AttributeValue;

    use super::{Duration, Instant, Item, Table, TableError, n, s, text};
    use crate::lease::table::Update;

    /// By worker: its last update, and since when that stands by this machine's clock.
    #[derive(Debug, Default)]
    pub struct Workers {
        seen: BTreeMap<String, (String, Instant)>,
    }

    impl Workers {
        /// Reads the rows; returns the workers whose row has moved within `alive`.
        pub async fn living(&mut self, table: &Table, alive: impl Fn(&str) -> Duration) -> Result<BTreeSet<String>, TableError> {
            let items = table.scan().await?;
            let rows: BTreeMap<String, String> = items.iter().filter_map(row).collect();
            self.seen.retain(|worker, _| rows.contains_key(worker));
            for (worker, update) in rows {
                let entry = self.seen.entry(worker).or_insert_with(|| (update.clone(), Instant::now()));
                if entry.0 != update {
                    *entry = (update, Instant::now());
                }
            }
            Ok(self.seen.iter().filter(|(worker, (_, since))| since.elapsed() < alive(worker)).map(|(worker, _)| worker.clone()).collect())
        }

        /// Workers whose row has not moved for `dead`.
        pub fn stale(&self, dead: Duration) -> Vec<String> {
            self.seen.iter().filter(|(_, (_, since))| since.elapsed() > dead).map(|(worker, _)| worker.clone()).collect()
        }
    }

    /// The worker and what its row looks like: any change of it is a sign of life.
    fn row(item: &Item) -> Option<(String, String)> {
        let beat = item.get("trailwardenBeat").and_then(|v| v.as_n().ok()).cloned().unwrap_or_default();
        Some((text(item, "wid")?, format!("{}/{beat}", item.get("lut")?.as_n().ok()?)))
    }

    /// Says that `worker` is alive. Without figures of its load the library balances by the leases' throughput.
    pub async fn beat(table: &Table, worker: &str, now_s: u64, beat: u64) -> Result<(), TableError> {
        let empty = || AttributeValue::M(std::collections::HashMap::new());
        let update = Update::new(("wid", worker), "attribute_not_exists(wid) OR wid = :me").value(":me", s(worker));
        let update = update.set("lut", n(now_s)).set("sts", empty()).set("opr", empty()).set("trailwardenBeat", n(beat));
        table.update(update).await.map(drop)
    }

    pub async fn remove(table: &Table, worker: &str) -> Result<(), TableError> {
        table.delete(("wid", worker), None).await.map(drop)
    }
}
