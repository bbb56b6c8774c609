//! A row that one worker at a time holds: for the outbox of a fleet, which one desk drains.
//!
//! In: the worker's name, the time by its own clock. Out: whether it holds the claim now. Invariant: while clocks run equally fast,
//! no two workers hold it; one that stops renewing loses it to the next that has watched it unchanged for the claim's time.
//!
//! No two clocks are compared: a watcher measures how long the row has stayed the same. The row is renewed well before that, and
//! a holder that could not renew it stops by itself earlier than another may take it.

use std::{sync::Arc, time::Duration};

use super::{Change, Guard, Result, Store, Table, kv_key};

/// Shorter claims would be lost to a slow call.
const LEAST_MS: i64 = 3_000;
const CLAIM: &str = "claim";

pub struct Claim {
    store: Arc<dyn Store>,
    key: Vec<u8>,
    worker: String,
    /// One that was not renewed for so long is free.
    claim_ms: i64,
    /// When it was last renewed, and the row as written then.
    held: Option<(i64, Vec<u8>)>,
    /// Another's row, and since when it has been seen unchanged.
    watched: Option<(i64, Vec<u8>)>,
    renewals: u64,
}

impl Claim {
    /// `name`: what is claimed. `worker` is no other process's. `claim_ms`: how long a holder may be silent; the same for all.
    pub fn new(store: Arc<dyn Store>, name: &str, worker: &str, claim_ms: i64) -> Self {
        let (key, claim_ms) = (kv_key(CLAIM, name.as_bytes()), claim_ms.max(LEAST_MS));
        Self { store, key, worker: worker.to_owned(), claim_ms, held: None, watched: None, renewals: 0 }
    }

    fn renew_ms(&self) -> i64 {
        self.claim_ms / 3
    }

    /// How long after its last renewal a holder still counts itself as one.
    fn hold_ms(&self) -> i64 {
        self.claim_ms / 3 * 2
    }

    /// From one call of `hold` to the next.
    pub fn look_every(&self) -> Duration {
        Duration::from_millis((self.claim_ms / 9).clamp(1, 1_000).unsigned_abs())
    }

    /// Takes or renews the claim where that is due and possible; to be called each `look_every`. `now_ms`: of any steady clock.
    ///
    /// # Errors
    /// What the store says.
    pub fn hold(&mut self, now_ms: i64) -> Result<bool> {
        if self.held.as_ref().is_some_and(|(renewed_ms, _)| now_ms < renewed_ms.saturating_add(self.renew_ms())) {
            return Ok(true);
        }
        let row = self.store.get(Table::Kv, &self.key)?;
        let ours = self.held.as_ref().is_some_and(|(_, written)| Some(written) == row.as_ref());
        if !ours {
            self.held = None;
            if let Some(row) = &row {
                match &self.watched {
                    Some((since_ms, seen)) if seen == row && now_ms >= since_ms.saturating_add(self.claim_ms) => {}
                    Some((_, seen)) if seen == row => return Ok(false),
                    _ => {
                        self.watched = Some((now_ms, row.clone()));
                        return Ok(false);
                    }
                }
            }
        }
        self.watched = None;
        self.renewals += 1;
        let next = format!("{} {}", self.worker, self.renewals).into_bytes();
        let put = Change::Put { table: Table::Kv, key: self.key.clone().into(), value: next.clone().into() };
        let done = self.store.commit_if(&[self.guard(row)], vec![put])?;
        self.held = done.then_some((now_ms, next));
        Ok(done)
    }

    /// Whether what the claim is for may be done at this moment.
    pub fn is_held(&self, now_ms: i64) -> bool {
        self.held.as_ref().is_some_and(|(renewed_ms, _)| now_ms < renewed_ms.saturating_add(self.hold_ms()))
    }

    /// The worker that was seen to hold it last.
    pub fn holder(&self) -> Option<String> {
        let (_, row) = self.held.as_ref().or(self.watched.as_ref())?;
        Some(String::from_utf8_lossy(row).rsplit_once(' ')?.0.to_owned())
    }

    /// Lets it go, so that another can take it at once.
    ///
    /// # Errors
    /// What the store says.
    pub fn release(&mut self) -> Result<()> {
        let Some((_, row)) = self.held.take() else { return Ok(()) };
        let delete = Change::Delete { table: Table::Kv, key: self.key.clone().into() };
        // Refused where it is no longer ours.
        self.store.commit_if(&[self.guard(Some(row))], vec![delete]).map(|_| ())
    }

    fn guard(&self, value: Option<Vec<u8>>) -> Guard {
        Guard { table: Table::Kv, key: self.key.clone().into(), value: value.map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn one_holds_it() {
        const CLAIM_MS: i64 = 15_000;
        const RENEW_MS: i64 = 5_000;
        const HOLD_MS: i64 = 10_000;
        let store = Arc::new(MemoryStore::new());
        let claim = |worker| Claim::new(store.clone(), "outbox", worker, CLAIM_MS);
        let (mut a, mut b, mut c) = (claim("a"), claim("b"), claim("c"));
        assert_eq!(a.holder(), None);
        assert!(a.hold(0).unwrap() && a.is_held(HOLD_MS - 1) && !a.is_held(HOLD_MS));
        // Renewed in time, it is never free; another's clock may show anything.
        for step in 1..10 {
            assert!(a.hold(step * RENEW_MS).unwrap());
            assert!(!b.hold(1_000_000 + step * RENEW_MS).unwrap() && !b.is_held(1_000_000));
        }
        assert_eq!((a.holder().as_deref(), b.holder().as_deref()), (Some("a"), Some("a")));
        // Its holder is silent: the first that has watched for long enough has it, the second does not.
        let since = 1_000_000 + 9 * RENEW_MS;
        assert!(!b.hold(since + CLAIM_MS - 1).unwrap() && !c.hold(500).unwrap());
        assert!(b.hold(since + CLAIM_MS).unwrap());
        assert!(!c.hold(500 + CLAIM_MS).unwrap(), "it has changed since");
        assert!(!a.hold(20 * RENEW_MS).unwrap(), "a zombie sees that it has lost it");
        a.release().unwrap();
        assert!(b.hold(since + CLAIM_MS + RENEW_MS).unwrap(), "what is not held is not let go");
        b.release().unwrap();
        assert!(c.hold(600 + CLAIM_MS).unwrap(), "let go, it is free at once");
    }

    #[test]
    fn two_that_see_it_free_are_not_both_given_it() {
        /// A store in which another is always first.
        struct Raced(MemoryStore);
        impl Store for Raced {
            fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
                let found = self.0.get(table, key)?;
                self.0.commit(vec![Change::Put { table, key: key.into(), value: b"other 1"[..].into() }])?;
                Ok(found)
            }
            fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: crate::store::Visit) -> Result<()> {
                self.0.scan(table, prefix, from, visit)
            }
            fn commit(&self, changes: Vec<Change>) -> Result<()> {
                self.0.commit(changes)
            }
            fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
                self.0.commit_if(guards, changes)
            }
            fn bytes(&self) -> u64 {
                self.0.bytes()
            }
        }
        let mut claim = Claim::new(Arc::new(Raced(MemoryStore::new())), "outbox", "a", 15_000);
        assert!(!claim.hold(0).unwrap() && !claim.is_held(0));
    }
}
