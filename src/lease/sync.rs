//! Leases for shards: made at the start, at a shard's end and where the audit finds a hole; deleted when over.
//!
//! In: the service's list and the table's rows. Out: new and deleted rows. Invariant: a parent's end is committed only once
//! its children have their leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_kinesis::Client;

use super::{
    NoticeKind, Notices,
    manager::CommitError,
    plan::{self, Seen},
    row::{Naming, Row},
    shards::{self, ListError, Shard},
    table::Table,
};
use crate::{metrics::Metrics, position::Position};

pub struct Syncer {
    kinesis: Client,
    leases: Table,
    naming: Naming,
    start: Position,
    notices: Notices,
    metrics: Arc<Metrics>,
    /// Leases of shards that are over are kept for so long.
    linger: Duration,
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Syncer({:?})", self.naming)
    }
}

impl Syncer {
    pub fn new(kinesis: Client, leases: Table, naming: Naming, start: Position, notices: Notices, metrics: Arc<Metrics>, linger: Duration) -> Self {
        Self { kinesis, leases, naming, start, notices, metrics, linger }
    }

    /// Brings the table in line with every stream; returns how many leases were made.
    pub async fn sync(&self, seen: &[Seen<'_>]) -> Result<usize, CommitError> {
        let mut made = 0;
        for (stream, serialized) in self.naming.streams() {
            let of_stream: Vec<&Seen<'_>> = seen.iter().filter(|s| self.naming.stream_of(&s.row.key) == Some(stream)).collect();
            let listed = match shards::list(&self.kinesis, stream).await {
                Ok(listed) => listed,
                Err(error @ ListError::Missing(_)) => {
                    self.notices.raise(NoticeKind::StreamMissing, stream, error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            made += self.sync_stream(stream, serialized, &of_stream, &listed).await?;
        }
        Ok(made)
    }

    async fn sync_stream(&self, stream: &str, serialized: Option<&str>, seen: &[&Seen<'_>], listed: &[Shard]) -> Result<usize, CommitError> {
        let rows = || seen.iter().map(|s| s.row);
        let mut known: BTreeMap<String, Position> = rows().map(|r| (r.shard().to_owned(), r.position().clone())).collect();
        for row in rows().filter(|r| r.is_finished()) {
            if listed.iter().any(|s| s.open && s.id == row.shard()) && self.leases.delete_lease(row).await? {
                let message = format!("{} was past its end and is open again: the stream was made anew and is read from its beginning", row.key);
                self.notices.raise(NoticeKind::StreamRecreated, stream, message);
                known.remove(row.shard());
                self.make(serialized, listed, row.shard(), Position::TrimHorizon).await?;
                known.insert(row.shard().to_owned(), Position::TrimHorizon);
            }
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut made = 0;
        for (shard, from) in shards::unbegun(listed, &known, &self.start) {
            let from = if from == Position::Latest { Position::AtTimestamp(now_ms) } else { from };
            made += usize::from(self.make(serialized, listed, &shard, from.clone()).await?);
            known.insert(shard, from);
        }
        // Rows of this stream that a parent's end still hides are no holes: their parents cover them.
        let unread: BTreeMap<String, Position> =
            known.iter().filter(|(_, at)| **at != Position::ShardEnd).map(|(s, p)| (s.clone(), p.clone())).collect();
        let holes = shards::holes(listed, &unread);
        self.metrics.fleet.holes.set(holes.len() as i64);
        if !holes.is_empty() {
            tracing::warn!(stream, ?holes, "no lease covers these hash keys; their shards' leases are made as they are listed");
        }
        let ids: BTreeSet<&str> = listed.iter().map(|s| s.id.as_str()).collect();
        for row in plan::to_delete(seen, &ids, self.linger) {
            if self.leases.delete_lease(row).await? {
                tracing::info!(lease = row.key, "over, and deleted");
            }
        }
        Ok(made)
    }

    async fn make(&self, serialized: Option<&str>, listed: &[Shard], shard: &str, from: Position) -> Result<bool, CommitError> {
        let Some(shard) = listed.iter().find(|s| s.id == shard) else { return Ok(false) };
        let key = self.naming.key(serialized, &shard.id);
        let row = Row { key, checkpoint: Some(from), parents: shard.parents.clone(), range: Some(shard.range), ..Row::default() };
        let (lease, from) = (row.key.clone(), row.position().clone());
        let made = self.leases.put_new("leaseKey", row.to_item(serialized)).await?;
        if made {
            tracing::info!(lease, ?from, "made");
        }
        Ok(made)
    }

    /// The children of `row`'s shard, each with a lease. A child's other parent that nobody has come to yet gets one too: without it
    /// that parent would count as past, and the child be read before it.
    pub async fn children_of(&self, row: &Row) -> Result<Vec<String>, CommitError> {
        let Some(stream) = self.naming.stream_of(&row.key).map(str::to_owned) else { return Ok(Vec::new()) };
        let serialized = row.key.rsplit_once(':').map(|(serialized, _)| serialized);
        let listed = match shards::list(&self.kinesis, &stream).await {
            // Nothing follows in a stream that is gone.
            Err(ListError::Missing(_)) => return Ok(Vec::new()),
            listed => listed?,
        };
        let children: Vec<String> = listed.iter().filter(|s| s.parents.iter().any(|p| p == row.shard())).map(|s| s.id.clone()).collect();
        if children.is_empty() && listed.iter().any(|s| s.id == row.shard()) {
            let message = format!("{} has ended and its children are not listed yet", row.shard());
            return Err(ListError::Failed { stream, message }.into());
        }
        if listed.iter().any(|s| children.contains(&s.id) && s.parents.len() > 1) {
            let rows = self.leases.leases().await?;
            let leased = rows.iter().filter(|r| self.naming.stream_of(&r.key) == Some(&stream)).map(Row::shard).collect();
            for ancestor in lacking(&listed, &leased, &children) {
                self.make(serialized, &listed, ancestor, Position::TrimHorizon).await?;
            }
        }
        for child in &children {
            self.make(serialized, &listed, child, Position::TrimHorizon).await?;
        }
        Ok(children)
    }
}

/// The listed ancestors of `children` that nobody has come to: neither they nor what follows them has a lease.
fn lacking<'s>(listed: &'s [Shard], leased: &BTreeSet<&str>, children: &[String]) -> BTreeSet<&'s str> {
    let past = shards::ancestors(listed, leased.iter().copied());
    let wanted = shards::ancestors(listed, children.iter().map(String::as_str));
    let ids = listed.iter().map(|s| s.id.as_str());
    ids.filter(|id| wanted.contains(id) && !leased.contains(id) && !past.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_without_a_lease_get_one() {
        // a → b c; c → e; b e → f: when b ends, e is not leased while c is read.
        let family = [("a", ""), ("b", "a"), ("c", "a"), ("e", "c"), ("f", "b e")];
        let listed = family.map(|(id, parents)| Shard {
            id: id.to_owned(),
            parents: parents.split_whitespace().map(str::to_owned).collect(),
            range: (0, u128::MAX),
            open: false,
        });
        for (leased, expected) in [("b c", "e"), ("b c e", ""), ("a b", "c e"), ("b", "c e")] {
            let leased = leased.split(' ').collect();
            let got: Vec<_> = lacking(&listed, &leased, &["f".to_owned()]).into_iter().collect();
            assert_eq!(got.join(" "), expected, "{leased:?}");
        }
        assert_eq!(lacking(&listed[3..], &BTreeSet::from(["b"]), &["f".to_owned()]), BTreeSet::from(["e"]), "what is not listed is past");
    }
}
