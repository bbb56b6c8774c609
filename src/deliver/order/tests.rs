//! Orders are carried out once, by whichever desk is first, and what came of them is told.

use std::sync::Arc;

use super::*;
use crate::{
    alert::Alert,
    deliver,
    metrics::Metrics,
    route,
    sink::{self, Shared, Sink, http::Http},
    store::{MemoryStore, outbox_row},
};

const NOW_MS: i64 = 1_764_000_000_000;

/// A desk with one sink, which is never drained here: what it is told waits.
async fn desk(store: &Arc<dyn Store>) -> Desk {
    let config: sink::Config =
        serde_saphyr::from_str("pagerduty: {routing_key: 0123456789abcdef0123456789abcdef, endpoint: 'http://127.0.0.1:9/'}").unwrap();
    let pager = Sink::open("pager", &config, &Shared { http: Http::new(), page_url: None }).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    Desk::open(store.clone(), vec![pager], &route::Config::default(), deliver::Config::default(), metrics).unwrap()
}

fn silence(id: &str) -> Silence {
    let request = serde_json::from_str(r#"{"match": {"rules": ["r"]}, "seconds": 60, "reason": "drill"}"#).unwrap();
    Silence::new(id.into(), request, NOW_MS).unwrap()
}

fn alert() -> Alert {
    crate::store::tests::alert(0, Level::High, NOW_MS)
}

fn waiting(store: &dyn Store) -> usize {
    store.kv_scan(ledger::PENDING, &[]).unwrap().len()
}

#[tokio::test]
async fn each_kind_is_carried_out_and_told() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let desk = desk(&store).await;
    store.commit(vec![outbox_row(&alert()).unwrap()]).unwrap();
    desk.plan(NOW_MS).unwrap();
    let check = |order: Order, expected: Outcome, waits: usize| {
        let id = write_down(&*store, &order, NOW_MS).unwrap().unwrap();
        assert_eq!(outcome(&*store, &id).unwrap(), None, "{order:?}");
        assert_eq!(desk.take_orders(NOW_MS).unwrap(), 1);
        assert_eq!(outcome(&*store, &id).unwrap(), Some(expected), "{order:?}");
        assert_eq!(outcome(&*store, &id).unwrap(), None, "given once");
        assert_eq!(waiting(&*store), waits, "{order:?}");
    };
    let incident = "0".repeat(32);
    check(Order::AddSilence(silence("a")), Outcome::Silence(silence("a")), 1);
    assert_eq!(desk.silences(), [silence("a")]);
    check(Order::EndSilence("b".into()), Outcome::Done(false), 1);
    check(Order::EndSilence("a".into()), Outcome::Silence(silence("a")), 1);
    assert_eq!(desk.silences(), []);
    check(Order::Acknowledge(incident.clone()), Outcome::Done(true), 2);
    check(Order::Resolve("unknown".into()), Outcome::Done(false), 2);
    check(Order::Resolve(incident.clone()), Outcome::Done(true), 3);
    check(Order::Acknowledge(incident), Outcome::Done(false), 3);
    check(Order::TestAlert { level: Level::Low, pillar: None }, Outcome::Sinks(vec!["pager".into()]), 4);
    check(Order::ReplayLetter("unknown".into()), Outcome::Done(false), 4);
    let letter =
        ledger::DeadLetter { id: "l".into(), sink: "pager".into(), why: "400".into(), at_ms: 0, notice: crate::sink::Notice::trigger(alert()) };
    store.kv_write(&[ledger::put(ledger::DEAD, "l", &letter).unwrap()]).unwrap();
    check(Order::ReplayLetter("l".into()), Outcome::Done(true), 5);
}

#[tokio::test]
async fn a_desk_that_wakes_up_late_does_nothing_twice() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (late, next) = (desk(&store).await, desk(&store).await);
    let order = Order::TestAlert { level: Level::High, pillar: None };
    let id = write_down(&*store, &order, NOW_MS).unwrap().unwrap();
    let row = store.kv_get(ORDER, id.as_bytes()).unwrap().unwrap();
    assert_eq!(next.take_orders(NOW_MS).unwrap(), 1);
    // The other had read the row before it was stopped.
    let taken = Taken { key: id.clone().into_bytes(), row };
    assert!(!late.carry_out_taken(&order, Some(taken), NOW_MS).unwrap().1);
    assert_eq!(waiting(&*store), 1, "one test alert");
    // What the late one did just before it lost the claim is seen by the next.
    late.carry_out(&Order::AddSilence(silence("a")), NOW_MS).unwrap();
    next.sweep(NOW_MS).unwrap();
    assert_eq!(next.silences(), [silence("a")]);
    // The answer that nobody came for goes.
    next.sweep(NOW_MS + ANSWER_KEEP_MS).unwrap();
    assert_eq!(outcome(&*store, &id).unwrap(), None);
}

#[tokio::test]
async fn orders_are_bounded_and_may_be_of_another_version() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store.kv_write(&[KvOp::Put { namespace: ORDER, key: b"0".to_vec(), value: br#"{"make_tea": 1}"#.to_vec() }]).unwrap();
    let order = Order::EndSilence("x".into());
    for _ in 1..ORDERS {
        write_down(&*store, &order, NOW_MS).unwrap().unwrap();
    }
    assert_eq!(write_down(&*store, &order, NOW_MS).unwrap(), None);
    let desk = desk(&store).await;
    assert_eq!(desk.take_orders(NOW_MS).unwrap(), ORDERS - 1);
    let refused = outcome(&*store, "0").unwrap();
    assert!(matches!(&refused, Some(Outcome::Refused(why)) if why.contains("another version")), "{refused:?}");
    assert!(write_down(&*store, &order, NOW_MS).unwrap().is_some());
    assert_eq!(desk.take_orders(NOW_MS).unwrap(), 1);
}
