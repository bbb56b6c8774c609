//! Who may read which shard, from where: by itself in one process, through a lease table in a fleet.
//!
//! In: the streams' shards and the positions kept. Out: `Grants`, a view of the shards to read now. Invariant: a shard is
//! granted only once every record of its parents is past.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::{mpsc, watch};

use crate::position::{Position, ShardId};

pub mod config;
pub mod leader;
pub mod ledger;
pub mod local;
pub mod manager;
pub mod plan;
pub mod row;
pub mod shards;
pub mod sync;
pub mod table;

/// The right to read one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Rises each time the lease changes hands: a commit under an older one is refused. 0 in one process.
    pub counter: u64,
    /// Where to go on.
    pub from: Position,
}

/// The shards that this process may read now.
pub type Grants = Arc<BTreeMap<ShardId, Grant>>;

/// Something that a person should know about a stream, beyond a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub kind: NoticeKind,
    /// A stream's name or a `ShardId`.
    pub about: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoticeKind {
    /// The record of the checkpoint is no longer in the stream: what followed it may be lost.
    CheckpointPastRetention,
    /// The stream was deleted and made anew; reading starts at its beginning.
    StreamRecreated,
    StreamMissing,
    /// A shard went before its end was read.
    ShardGone,
    /// The stream's KMS key refuses to decrypt.
    KmsDenied,
    /// IAM refuses a call.
    AccessDenied,
    /// Much of what comes can't be decoded.
    Unreadable,
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CheckpointPastRetention => "checkpoint_past_retention",
            Self::StreamRecreated => "stream_recreated",
            Self::StreamMissing => "stream_missing",
            Self::ShardGone => "shard_gone",
            Self::KmsDenied => "kms_denied",
            Self::AccessDenied => "access_denied",
            Self::Unreadable => "unreadable",
        })
    }
}

/// Where notices go: logged, and handed to whoever turns them into alerts. A full channel loses the copy, not the log line.
#[derive(Debug, Clone)]
pub struct Notices {
    sender: mpsc::Sender<Notice>,
}

impl Notices {
    /// At most `bound` wait to be read.
    pub fn channel(bound: usize) -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(bound);
        (Self { sender }, receiver)
    }

    pub fn raise(&self, kind: NoticeKind, about: impl fmt::Display, message: impl Into<String>) {
        let notice = Notice { kind, about: about.to_string(), message: message.into() };
        tracing::warn!(kind = %notice.kind, about = notice.about, "{}", notice.message);
        let _ = self.sender.try_send(notice);
    }
}

/// What a worker of a fleet saw at its last look at the lease table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// This worker leads, and has compared the table with the streams' shards before it looked.
    pub leads: bool,
    /// The shards that are not past their end, whoever reads them.
    pub open: Vec<OpenShard>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenShard {
    pub shard: ShardId,
    /// `None`: nobody.
    pub reader: Option<String>,
    /// Every record of its parents is past.
    pub ready: bool,
}

/// The newest overview.
pub type OverviewView = watch::Receiver<Arc<Overview>>;

/// What a consumer needs of whoever grants shards.
pub type GrantsView = watch::Receiver<Grants>;
