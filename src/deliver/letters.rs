//! Dead letters: notices that a sink refused for good.
//!
//! In: refusals. Out: rows to list, inspect and replay, and a copy for the fallback sink. Invariant: a letter is removed only by
//! a replay, or as the oldest of too many.

use super::{
    Desk,
    ledger::{self, DeadLetter, Pending, ToldState, What},
    plan::Draft,
};
use crate::{
    sink::Notice,
    store::{KvOp, StoreError},
};

/// Beyond this the oldest letters go; `trailwarden_dead_letters` shows how near it is.
const DEAD_LETTERS: usize = 10_000;

impl Desk {
    /// Moves a waiting row to the dead letters, and its notice on to the fallback.
    pub(super) fn bury(&self, place: usize, key: &[u8], pending: &Pending, notice: &Notice, why: &str, now_ms: i64) -> Result<(), StoreError> {
        let post = &self.sinks[place];
        let mut state = self.state();
        let mut draft = Draft::default();
        let id = format!("{:x}-{:x}", now_ms, state.next_sequence());
        let letter = DeadLetter { id: id.clone(), sink: post.sink.name.to_string(), why: why.to_owned(), at_ms: now_ms, notice: notice.clone() };
        draft.ops.push(ledger::put(ledger::DEAD, [&ledger::time_bytes(now_ms)[..], id.as_bytes()].concat(), &letter)?);
        draft.ops.push(KvOp::Delete { namespace: ledger::PENDING, key: key.to_vec() });
        if let What::Incident { key, .. } = &pending.what
            && let Some(incident) = self.load(&mut draft, key)?
            && let Some(told) = incident.told.get_mut(&*post.sink.name)
        {
            told.state = ToldState::Ended;
        }
        if let Some(fallback) = self.fallback.filter(|f| *f != place && notice.note.is_none()) {
            let note = Some(format!("sink {} refused it: {why}", post.sink.name));
            self.queue_own(&mut state, &mut draft, fallback, Notice { note, ..notice.clone() }, now_ms)?;
            self.sinks[fallback].metrics.fallback.inc();
        }
        self.commit(&mut state, draft, now_ms)?;
        drop(state);
        post.metrics.rejected.inc();
        self.count_letters()
    }

    /// Oldest first.
    pub fn letters(&self) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(ledger::all(&*self.store, ledger::DEAD)?.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Brings the gauges up to date, and drops the oldest of too many.
    pub(super) fn count_letters(&self) -> Result<(), StoreError> {
        let rows = ledger::all::<DeadLetter>(&*self.store, ledger::DEAD)?;
        for post in &self.sinks {
            let count = rows.iter().filter(|(_, letter)| *letter.sink == *post.sink.name).count();
            post.metrics.dead_letters.set(count as i64);
        }
        let over = rows.len().saturating_sub(DEAD_LETTERS);
        let ops: Vec<KvOp> = rows.into_iter().take(over).map(|(key, _)| KvOp::Delete { namespace: ledger::DEAD, key }).collect();
        if ops.is_empty() { Ok(()) } else { self.store.kv_write(&ops) }
    }
}
