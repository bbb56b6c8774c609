//! Orders of people to the worker that delivers, written down by a worker that doesn't.
//!
//! In: an order, a store that all workers share. Out: its outcome, once the worker that delivers has noted it. Invariant: an order leaves
//! the store in the transaction that carries it out, hence once, whoever dies or wakes up in the midst of it.

use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

use super::{Desk, ledger, plan::Draft};
use crate::{
    alert::Level,
    route::{Silence, SilenceError},
    store::{KvOp, Store, StoreError},
};

const ORDER: &str = "order";
const ANSWER: &str = "answer";
/// Orders that wait; more are refused. `trailwarden_orders_waiting` shows them.
const ORDERS: usize = 100;
/// Whoever asked has read the answer by then, or has left.
const ANSWER_KEEP_MS: i64 = 60_000;

/// A change that a person asks of delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there are few, and none lies in a list")]
pub enum Order {
    AddSilence(Silence),
    /// By its id.
    EndSilence(String),
    /// By incident key.
    Acknowledge(String),
    Resolve(String),
    TestAlert {
        level: Level,
        pillar: Option<String>,
    },
    /// By the dead letter's id.
    ReplayLetter(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there are few, and none lies in a list")]
pub enum Outcome {
    /// Added or ended.
    Silence(Silence),
    /// False: nothing has this id, or it is over.
    Done(bool),
    /// The sinks that a test alert is on its way to.
    Sinks(Vec<String>),
    /// Why not.
    Refused(String),
}

impl Outcome {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Done(false) | Self::Refused(_))
    }

    pub fn is_done(&self) -> bool {
        *self == Self::Done(true)
    }

    pub fn sinks(self) -> Vec<String> {
        if let Self::Sinks(sinks) = self { sinks } else { Vec::new() }
    }

    /// Of an order about the silence `id`.
    pub fn silence(self, id: &str) -> Result<Silence, SilenceError> {
        match self {
            Self::Silence(silence) => Ok(silence),
            _ => Err(SilenceError::Unknown(id.to_owned())),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Answer {
    outcome: Outcome,
    at_ms: i64,
}

/// Unlike any other, by any worker; orders as the times do.
pub fn new_id(now_ms: i64) -> String {
    format!("{now_ms:x}-{:016x}", std::collections::hash_map::RandomState::new().hash_one(now_ms))
}

/// Writes an order down for whoever delivers; its id, by which `outcome` finds what came of it. None: too many wait.
///
/// # Errors
/// What the store says.
pub fn write_down(store: &dyn Store, order: &Order, now_ms: i64) -> Result<Option<String>, StoreError> {
    if store.kv_first(ORDER, &[], ORDERS)?.len() >= ORDERS {
        return Ok(None);
    }
    let id = new_id(now_ms);
    store.kv_write(&[ledger::put(ORDER, id.as_str(), order)?])?;
    Ok(Some(id))
}

/// What came of an order; none: it waits. Given once.
///
/// # Errors
/// What the store says.
pub fn outcome(store: &dyn Store, id: &str) -> Result<Option<Outcome>, StoreError> {
    let Some(answer) = ledger::get::<Answer>(store, ANSWER, id)? else { return Ok(None) };
    store.kv_write(&[KvOp::Delete { namespace: ANSWER, key: id.as_bytes().to_vec() }])?;
    Ok(Some(answer.outcome))
}

/// The row of an order as it was read.
pub struct Taken {
    key: Vec<u8>,
    row: Vec<u8>,
}

impl Taken {
    /// The draft then carries out this order, and notes the outcome.
    pub(super) fn settle(self, draft: &mut Draft, outcome: &Outcome, now_ms: i64) -> Result<(), StoreError> {
        draft.ops.push(KvOp::Delete { namespace: ORDER, key: self.key.clone() });
        draft.ops.push(ledger::put(ANSWER, self.key.clone(), &Answer { outcome: outcome.clone(), at_ms: now_ms })?);
        draft.order = Some(self);
        Ok(())
    }

    /// False: the order waits no more, and nothing was written.
    pub(super) fn commit(&self, store: &dyn Store, ops: &[KvOp]) -> Result<bool, StoreError> {
        store.kv_write_if(ORDER, &self.key, &self.row, ops)
    }
}

impl Desk {
    /// Carries out what others have written down; returns how many.
    pub fn take_orders(&self, now_ms: i64) -> Result<usize, StoreError> {
        let rows = self.store.kv_first(ORDER, &[], ORDERS)?;
        self.metrics.delivery.orders.set(rows.len() as i64);
        let mut done = 0;
        for (key, row) in rows {
            let taken = Taken { key, row };
            match ledger::read::<Order>(ORDER, &taken.row) {
                Ok(order) => done += usize::from(self.carry_out_taken(&order, Some(taken), now_ms)?.1),
                // Of a newer worker, while the fleet is renewed.
                Err(error) => {
                    tracing::warn!(%error, "an order of another worker can't be carried out by this version");
                    let why = "the worker that delivers runs another version, which doesn't know this command; ask again once all are renewed";
                    let mut draft = Draft::default();
                    taken.settle(&mut draft, &Outcome::Refused(why.into()), now_ms)?;
                    self.commit(&mut self.state(), draft, now_ms)?;
                }
            }
        }
        Ok(done)
    }

    /// Rows of answers that nobody has come for.
    pub(super) fn stale_answers(&self, now_ms: i64) -> Result<Vec<KvOp>, StoreError> {
        let rows = self.store.kv_first(ANSWER, &[], ORDERS)?;
        let stale = |row: &[u8]| ledger::read::<Answer>(ANSWER, row).map_or(true, |answer| answer.at_ms.saturating_add(ANSWER_KEEP_MS) <= now_ms);
        Ok(rows.into_iter().filter(|(_, row)| stale(row)).map(|(key, _)| KvOp::Delete { namespace: ANSWER, key }).collect())
    }
}

#[cfg(test)]
mod tests;
