//! Alerts that another worker of the fleet has taken up, for those who watch this one.
//!
//! In: the rows of recent alerts, about every second. Out: new ones, to whoever watches. Invariant: nothing is read while nobody
//! watches; of what was there before somebody did only the last moments are told, which may be news to one who has just come.

use std::{collections::BTreeSet, ops::ControlFlow, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    alert::view::{AlertView, RECENT},
    store::{Store, StoreError},
};

/// Rows are keyed by the clock of the worker that delivers, and the next one's may be behind: so far back they are looked at again.
const SKEW_MS: u64 = 60_000;

/// Whoever begins to watch has listed what there was, a moment before the first look.
const MOMENT_MS: u64 = 3_000;

#[derive(Default)]
pub struct Follow {
    /// Keys of the newest rows, those before `SKEW_MS` left out; the store keeps `RECENT_ALERTS` at most. None: nobody watched.
    known: Option<BTreeSet<Vec<u8>>>,
}

impl Follow {
    /// Tells what has come since the last call.
    ///
    /// # Errors
    /// What the store says.
    pub fn look(&mut self, store: &dyn Store, live: &broadcast::Sender<Arc<AlertView>>, now_ms: i64) -> Result<(), StoreError> {
        if live.receiver_count() == 0 {
            self.known = None;
            return Ok(());
        }
        let from = self.known.as_ref().and_then(BTreeSet::last).map_or_else(Vec::new, |newest| before(newest));
        let mut rows = Vec::new();
        store.kv_from(RECENT, &from, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        let moment = now_ms.cast_unsigned().saturating_sub(MOMENT_MS).to_be_bytes();
        let is_new = |key: &[u8]| self.known.as_ref().map_or(*key >= moment[..], |known| !known.contains(key));
        for (_, row) in rows.iter().filter(|(key, _)| is_new(key)) {
            // Nobody listening any more is no error; a row of a newer version is left to the list.
            let _ = serde_json::from_slice(row).map(|view: AlertView| live.send(Arc::new(view)));
        }
        self.known = Some(rows.into_iter().map(|(key, _)| key).collect());
        Ok(())
    }

    /// This worker delivers: it tells all by itself.
    pub fn pause(&mut self) {
        self.known = None;
    }
}

/// The least key of `SKEW_MS` earlier.
fn before(key: &[u8]) -> Vec<u8> {
    let time_ms = key.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
    time_ms.saturating_sub(SKEW_MS).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{KvOp, MemoryStore};

    #[test]
    fn only_what_is_new_is_told_and_a_late_clock_hides_nothing() {
        let (store, live) = (MemoryStore::new(), broadcast::channel(16).0);
        let put = |at_ms: u64| {
            let alert = r#"{"id":"0","incident":"0","time_ms":1,"rule":{"id":"r","title":"R","level":"high","tags":[],"description":"","false_positives":[],"next":null},"account":"","region":"","group":[],"summary":"","events":[],"count":1,"late":false}"#;
            let row = format!(r#"{{"outcome":"sent","seen_ms":{at_ms},"incident":"0","account_name":null,"sinks":[],"test":false,"alert":{alert}}}"#);
            let key = [at_ms.to_be_bytes(), 1_u64.to_be_bytes()].concat();
            store.kv_write(&[KvOp::Put { namespace: RECENT, key, value: row.into_bytes() }]).unwrap();
        };
        let mut follow = Follow::default();
        put(1_000_000);
        put(1_058_000);
        follow.look(&store, &live, 1_060_000).unwrap();
        let mut watcher = live.subscribe();
        let mut told = |follow: &mut Follow| -> Vec<i64> {
            follow.look(&store, &live, 1_060_000).unwrap();
            std::iter::from_fn(|| watcher.try_recv().ok()).map(|view| view.seen_ms).collect()
        };
        const NOTHING: [i64; 0] = [];
        assert_eq!(told(&mut follow), [1_058_000], "what was there before is no news, but for the last moments");
        put(1_060_500);
        assert_eq!(told(&mut follow), [1_060_500]);
        assert_eq!(told(&mut follow), NOTHING);
        put(1_100_000);
        put(1_100_001);
        assert_eq!(told(&mut follow), [1_100_000, 1_100_001]);
        put(1_041_000);
        assert_eq!(told(&mut follow), [1_041_000], "by a worker whose clock is a minute behind");
        follow.pause();
        assert_eq!(told(&mut follow), [1_058_000, 1_060_500, 1_100_000, 1_100_001], "as at the start");
    }
}
