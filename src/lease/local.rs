//! One process that reads whole streams: no lease table, positions kept by the store.
//!
//! In: the positions of the last run, commits as they happen. Out: grants. Invariant: what one stream does (missing, slow to
//! list) never holds up another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_kinesis::Client;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{
    Grant, Grants, GrantsView, NoticeKind, Notices,
    shards::{self, ListError, Shard},
};
use crate::position::{Position, ShardId};

/// Shards are listed again this often, besides at every shard's end.
const RELIST: Duration = Duration::from_secs(60);
/// After a list that failed, and while children of an ended shard are not yet listed.
const RETRY: Duration = Duration::from_secs(2);

/// Grants every shard of some streams to this process; dropping it stops the listing.
#[derive(Debug)]
pub struct Local {
    streams: BTreeMap<String, Arc<Stream>>,
    view: GrantsView,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    start: Position,
    started_ms: u64,
    /// Position by `shardId-…`.
    known: Mutex<BTreeMap<String, Position>>,
    /// A shard has ended.
    ended: Notify,
}

impl Local {
    /// Reads `streams` on from `positions` (of the store), or from `start` a stream of which no shard is there.
    pub fn start(
        client: &Client,
        streams: &[String],
        start: &Position,
        positions: impl IntoIterator<Item = (ShardId, Position)>,
        notices: &Notices,
    ) -> Self {
        let mut known: BTreeMap<String, BTreeMap<String, Position>> = BTreeMap::new();
        for (shard, position) in positions {
            let (stream, id) = shards::split_id(&shard);
            known.entry(stream.to_owned()).or_default().insert(id.to_owned(), position);
        }
        let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let (sender, view) = watch::channel(Grants::default());
        let sender = Arc::new(sender);
        let (mut tasks, mut all) = (JoinSet::new(), BTreeMap::new());
        for name in streams {
            let known = Mutex::new(known.remove(name).unwrap_or_default());
            let stream = Arc::new(Stream { name: name.clone(), start: start.clone(), started_ms, known, ended: Notify::new() });
            tasks.spawn(Arc::clone(&stream).follow(client.clone(), Arc::clone(&sender), notices.clone()));
            all.insert(name.clone(), stream);
        }
        Self { streams: all, view, _tasks: tasks }
    }

    pub fn grants(&self) -> GrantsView {
        self.view.clone()
    }

    /// The store holds `position` of `shard` now. A shard's end lets its children begin.
    pub fn committed(&self, shard: &ShardId, position: &Position) {
        let (stream, id) = shards::split_id(shard);
        let Some(stream) = self.streams.get(stream) else { return };
        stream.known.lock().expect("no holder panics").insert(id.to_owned(), position.clone());
        if *position == Position::ShardEnd {
            stream.ended.notify_one();
        }
    }
}

impl Stream {
    async fn follow(self: Arc<Self>, client: Client, grants: Arc<watch::Sender<Grants>>, notices: Notices) {
        let mut missing = false;
        loop {
            let wait = match shards::list(&client, &self.name).await {
                Ok(listed) => {
                    missing = false;
                    let (own, waiting) = self.plan(&listed, &notices);
                    publish(&grants, &self.name, own);
                    if waiting { RETRY } else { RELIST }
                }
                Err(error) => {
                    let kind = match error {
                        ListError::Missing(_) => Some(NoticeKind::StreamMissing),
                        ListError::Denied { .. } => Some(NoticeKind::AccessDenied),
                        ListError::Failed { .. } => None,
                    };
                    match kind {
                        Some(kind) if !missing => notices.raise(kind, &self.name, error.to_string()),
                        _ => tracing::warn!(stream = self.name, "{error}"),
                    }
                    missing |= kind.is_some();
                    RETRY
                }
            };
            let _ = tokio::time::timeout(wait, self.ended.notified()).await;
        }
    }

    /// The stream's grants, and whether an ended shard's children are still to be listed.
    fn plan(&self, listed: &[Shard], notices: &Notices) -> (Vec<(ShardId, Grant)>, bool) {
        let mut known = self.known.lock().expect("no holder panics");
        for shard in listed.iter().filter(|s| s.open) {
            if known.get(&shard.id) == Some(&Position::ShardEnd) {
                let message = format!("{} was past its end and is open again: the stream was made anew and is read from its beginning", shard.id);
                notices.raise(NoticeKind::StreamRecreated, &self.name, message);
                known.insert(shard.id.clone(), Position::TrimHorizon);
            }
        }
        for (id, from) in shards::unbegun(listed, &known, &self.start) {
            // A restart would move LATEST; a time stays where it is.
            let from = if from == Position::Latest { Position::AtTimestamp(self.started_ms) } else { from };
            known.insert(id, from);
        }
        let readable = |s: &&Shard| known.get(&s.id).is_some_and(|at| *at != Position::ShardEnd) && shards::is_ready(s, &known);
        let grant = |s: &Shard| (shards::shard_id(&self.name, &s.id), Grant { counter: 0, from: known[&s.id].clone() });
        let own: Vec<_> = listed.iter().filter(readable).map(grant).collect();
        let childless = |s: &Shard| known.get(&s.id) == Some(&Position::ShardEnd) && !listed.iter().any(|c| c.parents.contains(&s.id));
        let waiting = listed.iter().any(childless);
        (own, waiting)
    }
}

/// Replaces one stream's part of the view. A shard that is granted already keeps its grant: its reader knows better where
/// it stands.
fn publish(grants: &watch::Sender<Grants>, stream: &str, own: Vec<(ShardId, Grant)>) {
    grants.send_if_modified(|current| {
        let mut next = BTreeMap::clone(current);
        next.retain(|shard, _| shards::split_id(shard).0 != stream);
        for (shard, grant) in own {
            let grant = current.get(&shard).cloned().unwrap_or(grant);
            next.insert(shard, grant);
        }
        let changed = next != **current;
        *current = Arc::new(next);
        changed
    });
}
