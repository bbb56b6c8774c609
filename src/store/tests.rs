//! One table of expectations for every store: `check_store` is also run on the embedded one.

use std::sync::Arc;

use super::*;
use crate::alert::RuleInfo;

pub(crate) fn alert(id: u128, level: Level, time_ms: i64) -> Alert {
    Alert {
        id: format!("{id:032x}"),
        incident: format!("{id:032x}"),
        time_ms,
        rule: Arc::new(RuleInfo {
            id: "r".into(),
            title: "t".into(),
            level,
            tags: vec![],
            description: String::new(),
            false_positives: vec![],
            next: None,
            resolve_after_ms: None,
        }),
        account: "111122223333".into(),
        region: "eu-west-1".into(),
        group: vec![],
        summary: "s".into(),
        events: vec![],
        count: 1,
        late: false,
        resolved: false,
        arrived_ms: 0,
    }
}

fn put(table: Table, key: &str, value: &str) -> Change {
    Change::Put { table, key: key.as_bytes().into(), value: value.as_bytes().into() }
}

fn keys(store: &dyn Store, table: Table, prefix: &str, from: &str) -> Vec<String> {
    let mut found = Vec::new();
    store
        .scan(table, prefix.as_bytes(), from.as_bytes(), &mut |key, _| {
            found.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// What must be true of every store that starts empty.
pub(crate) fn check_store(store: &dyn Store) {
    store.commit(vec![put(Table::Evidence, "a1", "x"), put(Table::Evidence, "a2", "y"), put(Table::Evidence, "b", "z")]).unwrap();
    store.commit(vec![put(Table::Evidence, "a2", "w"), Change::Delete { table: Table::Evidence, key: b"b"[..].into() }]).unwrap();
    assert_eq!(store.get(Table::Evidence, b"a2").unwrap().as_deref(), Some(&b"w"[..]));
    assert_eq!(store.get(Table::Evidence, b"b").unwrap(), None);
    assert_eq!(store.get(Table::Meta, b"a1").unwrap(), None, "tables are apart");
    for (prefix, from, expected) in [("", "", &["a1", "a2"][..]), ("a", "a2", &["a2"]), ("b", "", &[]), ("a1", "a2", &[])] {
        assert_eq!(keys(store, Table::Evidence, prefix, from), expected, "prefix {prefix:?} from {from:?}");
    }
    check_outbox(store);
    check_kv(store);
    check_positions(store);
    check_guards(store);
}

fn check_guards(store: &dyn Store) {
    let group = [7; 16];
    let guard = |value: Option<&str>| Guard { table: Table::Meta, key: version_key(&group).into(), value: value.map(|v| v.as_bytes().into()) };
    let put = |table, key: Vec<u8>, value: &str| Change::Put { table, key: key.into(), value: value.as_bytes().into() };
    let batch = |version: &str, item: &[u8]| {
        vec![
            put(Table::Meta, version_key(&group), version),
            put(Table::Groups, group.to_vec(), "group"),
            put(Table::Fired, [b"c", &group[..], item].concat(), "cell"),
            put(Table::Evidence, [&group[..], item].concat(), "item"),
        ]
    };
    for (seen, next, item, expected) in [
        (Some("1"), "1", b"x", false),
        (None, "1", b"a", true),
        (None, "2", b"y", false),
        (Some("1"), "2", b"b", true),
        (Some("1"), "3", b"z", false),
    ] {
        assert_eq!(store.commit_if(&[guard(seen)], batch(next, item)).unwrap(), expected, "{seen:?} to {next}");
    }
    let other = Guard { table: Table::Fired, key: b"i-other"[..].into(), value: None };
    let lone = || vec![put(Table::Meta, b"lone".to_vec(), "x")];
    assert!(!store.commit_if(&[other.clone(), guard(None)], lone()).unwrap(), "a guard on a row that isn't changed");
    assert_eq!(store.get(Table::Meta, b"lone").unwrap(), None);
    assert!(store.commit_if(&[other, guard(Some("2"))], lone()).unwrap());
    let mut rows = store.group(&group).unwrap();
    assert_eq!(rows[0], (Table::Meta, version_key(&group), b"2".to_vec()), "the version comes first");
    rows.sort();
    let found: Vec<_> = rows.iter().map(|(table, key, _)| (*table, *key.last().unwrap())).collect();
    let (evidence, fired) = (Table::Evidence, Table::Fired);
    assert_eq!(found, [(evidence, b'a'), (evidence, b'b'), (Table::Groups, 7), (fired, b'a'), (fired, b'b'), (Table::Meta, 7)]);
}

fn check_outbox(store: &dyn Store) {
    let alerts = [
        alert(1, Level::Low, 5),
        alert(2, Level::Critical, 20),
        alert(3, Level::High, 1),
        alert(4, Level::Critical, -3),
        alert(5, Level::Critical, 20),
    ];
    store.commit(alerts.iter().map(|a| outbox_row(a).unwrap()).collect()).unwrap();
    let ids = |n| store.outbox_list(n).unwrap().iter().map(|(_, a)| u128::from_str_radix(&a.id, 16).unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(10), [4, 2, 5, 3, 1], "critical first, then the older");
    assert_eq!(ids(2), [4, 2]);
    let listed = store.outbox_list(1).unwrap();
    assert_eq!(listed[0].1, alerts[3], "an alert comes back as it was");
    store.outbox_remove(&[listed[0].0, listed[0].0]).unwrap();
    assert_eq!((ids(10), store.outbox_len().unwrap()), (vec![2, 5, 3, 1], 4));
}

fn check_kv(store: &dyn Store) {
    let put = |namespace, key: &str, value: &str| KvOp::Put { namespace, key: key.into(), value: value.into() };
    let first = store.outbox_list(1).unwrap()[0].0;
    store.kv_write(&[put("dead", "k1", "a"), put("dead", "k2", "b"), put("deadline", "k3", "c"), KvOp::Remove(first)]).unwrap();
    let rows = |namespace, prefix: &str| -> Vec<String> {
        store.kv_scan(namespace, prefix.as_bytes()).unwrap().into_iter().map(|(k, v)| String::from_utf8([k, v].concat()).unwrap()).collect()
    };
    assert_eq!(rows("dead", ""), ["k1a", "k2b"], "namespaces are apart");
    assert_eq!(rows("dead", "k2"), ["k2b"]);
    assert_eq!(store.outbox_len().unwrap(), 3, "removed with the same batch");
    store.kv_write(&[KvOp::Delete { namespace: "dead", key: "k1".into() }, put("dead", "k2", "d")]).unwrap();
    assert_eq!(rows("dead", ""), ["k2d"]);
}

fn check_positions(store: &dyn Store) {
    let shard = |name: &str| ShardId(name.into());
    let sequence = SequenceNumber::new("49590338271490256608559692538361571095921575989136588898");
    let mut expected = vec![
        (shard("a"), Position::TrimHorizon),
        (shard("b"), Position::Latest),
        (shard("c"), Position::AtTimestamp(7)),
        (shard("d"), Position::After { sequence, sub_sequence: 3 }),
        (shard("e"), Position::ShardEnd),
    ];
    store.commit(expected.iter().map(|(s, p)| position_row(s, p)).collect()).unwrap();
    assert_eq!(store.positions().unwrap(), expected);
    expected[0].1 = Position::ShardEnd;
    store.commit(vec![position_row(&expected[0].0, &expected[0].1)]).unwrap();
    assert_eq!(store.positions().unwrap(), expected);
}

#[test]
fn memory_keeps_rows() {
    let store = MemoryStore::new();
    check_store(&store);
    assert!(store.bytes() > 0);
}

#[test]
fn memory_spills_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    for budget_bytes in [0, 500, 100_000] {
        let store = MemoryStore::with_budget(budget_bytes, folder.path().into());
        check_store(&store);
        assert_eq!(store.has_spilled(), budget_bytes < 100_000);
    }
}

#[test]
fn ids_that_are_not_hex_have_no_row() {
    for (id, ok) in [("0123456789abcdef0123456789abcdef", true), ("0123", false), ("+123456789abcdef0123456789abcdef", false), ("é", false)] {
        let mut a = alert(1, Level::Low, 0);
        a.id = id.into();
        assert_eq!(outbox_row(&a).is_some(), ok, "{id}");
    }
}

#[test]
fn times_order_as_bytes() {
    let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX];
    for pair in times.windows(2) {
        assert!(time_key(pair[0]) < time_key(pair[1]));
        assert_eq!(key_time(time_key(pair[0])), pair[0]);
    }
}
