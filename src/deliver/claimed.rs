//! Delivery of a fleet: the desk is open where the outbox is claimed, and nowhere else.
//!
//! In: a claim, a way to open a desk, a stop signal. Out: as `run`. Invariant: a desk is opened after the claim was taken, so that it
//! reads what the one before it left, and is closed before the claim runs out.

use std::{future::Future, sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{DeliverError, Desk};
use crate::{
    sink::http::Http,
    store::{blocking, claim::Claim},
};

/// Who delivers.
#[derive(Clone, Default)]
pub struct Delivering {
    /// The desk of this process, if it is this one.
    pub desk: Option<Arc<Desk>>,
    /// The worker's name; empty: not known, or there is no fleet.
    pub worker: String,
}

/// The newest of it.
pub type DeliveringView = watch::Receiver<Delivering>;

impl Delivering {
    /// Where one process does it all.
    pub fn here(desk: Arc<Desk>) -> DeliveringView {
        watch::channel(Self { desk: Some(desk), worker: String::new() }).1
    }
}

/// Runs until `stop` turns true or the store fails. `open` is called each time the claim is taken; `told` tells the others of the
/// process who delivers.
pub async fn run_claimed<F>(
    mut claim: Claim,
    mut open: impl FnMut() -> F,
    told: watch::Sender<Delivering>,
    http: Http,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DeliverError>
where
    F: Future<Output = Result<Arc<Desk>, DeliverError>>,
{
    let since = Instant::now();
    let clock_ms = || i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
    while !*stop.borrow() {
        let held = blocking(|| claim.hold(clock_ms()))?;
        let worker = claim.holder().unwrap_or_default();
        if held {
            tracing::info!("this worker delivers the fleet's alerts");
            let desk = open().await?;
            told.send_replace(Delivering { desk: Some(desk.clone()), worker });
            let ended = while_held(&mut claim, desk, &http, &mut stop, &clock_ms).await;
            told.send_replace(Delivering::default());
            ended?;
        } else {
            told.send_replace(Delivering { desk: None, worker });
        }
        tokio::select! {
            () = tokio::time::sleep(claim.look_every()) => {}
            _ = stop.changed() => {}
        }
    }
    blocking(|| claim.release())?;
    Ok(())
}

/// Until the claim is lost or `stop` turns true.
async fn while_held(
    claim: &mut Claim,
    desk: Arc<Desk>,
    http: &Http,
    stop: &mut watch::Receiver<bool>,
    clock_ms: &impl Fn() -> i64,
) -> Result<(), DeliverError> {
    let (end, ended) = watch::channel(false);
    let running = super::run(desk, http.clone(), ended);
    tokio::pin!(running);
    loop {
        tokio::select! {
            done = &mut running => return Ok(done?),
            () = tokio::time::sleep(claim.look_every()) => {
                if !blocking(|| claim.hold(clock_ms()))? || !claim.is_held(clock_ms()) {
                    tracing::warn!("another worker delivers now");
                    // What is being sent is broken off: the other sends it again, under the same key.
                    return Ok(());
                }
            }
            _ = stop.changed() => {
                // A failure to send doesn't matter: then it has ended.
                let _ = end.send(true);
                return Ok(running.await?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::{
        deliver, route,
        store::{MemoryStore, Store},
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_desk_is_open_and_the_next_follows_it() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let opened: [Arc<AtomicU64>; 2] = Default::default();
        let worker = |at: usize, stop: watch::Receiver<bool>| {
            let (store, opened) = (store.clone(), opened[at].clone());
            let claim = Claim::new(store.clone(), "outbox", &at.to_string(), 15_000);
            let open = move || {
                opened.fetch_add(1, Ordering::Relaxed);
                let metrics = Arc::new(crate::metrics::Metrics::new());
                let desk = Desk::open(store.clone(), vec![], &route::Config::default(), deliver::Config::default(), metrics);
                async { Ok(Arc::new(desk?)) }
            };
            tokio::spawn(run_claimed(claim, open, watch::channel(Default::default()).0, Http::new(), stop))
        };
        let counts = || [opened[0].load(Ordering::Relaxed), opened[1].load(Ordering::Relaxed)];
        let until = async |expected: [u64; 2]| {
            for _ in 0..200 {
                if counts() == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{:?}, not {expected:?}", counts());
        };
        let [(end_a, stop_a), (end_b, stop_b)] = [watch::channel(false), watch::channel(false)];
        let a = worker(0, stop_a);
        until([1, 0]).await;
        let b = worker(1, stop_b);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(counts(), [1, 0], "the second waits");
        end_a.send(true).unwrap();
        a.await.unwrap().unwrap();
        until([1, 1]).await;
        end_b.send(true).unwrap();
        b.await.unwrap().unwrap();
    }
}
