//! What to take, hand over and clean up, decided from one look at the table.
//!
//! In: rows with the time since they last moved, the workers alive. Out: decisions. Invariant: pure; that two workers decide
//! at once is settled by the table's conditions.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use super::row::Row;

/// A lease as seen, by this machine's clock.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    pub row: &'a Row,
    /// How long its counter has stood still.
    pub unmoved: Duration,
    /// How long its reader has been the same.
    pub kept: Duration,
    /// Its shard's parents are past. What can't be read yet is nobody's load: nobody takes it, renews it or hands it over.
    pub ready: bool,
    /// This worker holds it.
    pub held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A lease that has not moved for this long is free.
    pub failover: Duration,
    /// From one look to the next.
    pub tick: Duration,
    /// What has changed hands stays for so long, so that something of it is committed before it is handed on.
    pub settle: Duration,
    /// At most this many leases for one worker.
    pub most: usize,
}

impl Seen<'_> {
    fn is_free(&self, failover: Duration) -> bool {
        self.row.reader().is_none() || self.unmoved > failover
    }
}

/// The leases that `me` takes now, those of its share first. What others leave lying for a tick more is taken beyond it.
pub fn to_take<'a>(seen: &[Seen<'a>], me: &str, living: &BTreeSet<String>, limits: &Limits) -> Vec<&'a Row> {
    let open: Vec<_> = seen.iter().filter(|s| !s.row.is_finished() && s.ready).collect();
    let dead: BTreeSet<_> = open.iter().filter(|s| s.unmoved > limits.failover).filter_map(|s| s.row.reader()).collect();
    let holders = open.iter().filter(|s| !s.is_free(limits.failover)).filter_map(|s| s.row.reader());
    let mut workers: BTreeSet<&str> = living.iter().map(String::as_str).filter(|w| !dead.contains(w)).chain(holders).collect();
    workers.insert(me);
    let share = open.len().div_ceil(workers.len()).min(limits.most);
    let mine = open.iter().filter(|s| !s.is_free(limits.failover) && s.row.reader() == Some(me)).count();
    // Meant for us: a leader's assignment, which is renewed whether it can be read yet or not, or the end of a hand-over.
    let assigned = |s: &Seen<'_>| s.row.owner.as_deref() == Some(me) && s.row.checkpoint_owner.is_none() && !s.held;
    let overdue = |s: &Seen<'_>| s.unmoved > limits.tick * 2 + if s.row.reader().is_some() { limits.failover } else { Duration::ZERO };
    let takeable = |s: &&Seen<'_>| !s.row.is_finished() && (s.is_free(limits.failover) && s.ready || assigned(s));
    let mut free: Vec<_> = seen.iter().filter(takeable).collect();
    // Each worker in an order of its own, so that they rarely reach for the same one.
    let order = BuildHasherDefault::<DefaultHasher>::new();
    free.sort_by_key(|s| (!overdue(s), order.hash_one((me, &s.row.key))));
    let (mut taken, mut held) = (Vec::new(), mine);
    for s in free {
        if assigned(s) || held < share || overdue(s) && held < limits.most {
            held += 1;
            taken.push(s.row);
        }
    }
    taken
}

/// The next hand-over that evens out the workers' load, as (lease, to). One at a time: none while another is under way. Counts are
/// evened out at once, rates only where `by_rate`: they waver, and every move is a pause.
pub fn to_hand_over<'a>(seen: &[Seen<'a>], living: &BTreeSet<String>, limits: &Limits, by_rate: bool) -> Option<(&'a Row, String)> {
    let open: Vec<_> = seen.iter().filter(|s| !s.row.is_finished() && s.ready).collect();
    if open.iter().any(|s| s.row.checkpoint_owner.is_some() || s.is_free(limits.failover) || s.kept < limits.settle) {
        return None;
    }
    let mut loads: BTreeMap<&str, Vec<&Row>> = living.iter().map(|w| (w.as_str(), Vec::new())).collect();
    for s in &open {
        loads.entry(s.row.reader()?).or_default().push(s.row);
    }
    let rate = |rows: &[&Row]| rows.iter().filter_map(|r| r.throughput_kbps).sum::<f64>();
    let total: f64 = loads.values().map(|rows| rate(rows)).sum();
    let (most, most_rows) = loads.iter().max_by_key(|(_, rows)| rows.len())?;
    let (least, least_rows) = loads.iter().filter(|(w, _)| living.contains(**w)).min_by_key(|(_, rows)| rows.len())?;
    if most != least && most_rows.len() > least_rows.len() + 1 {
        // By count: of the fuller worker the lease that brings the rates nearest to each other.
        let wanted = (rate(most_rows) - rate(least_rows)) / 2.0;
        let distance = |r: &&&Row| (r.throughput_kbps.unwrap_or(0.0) - wanted).abs();
        let row = most_rows.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        return Some((row, (*least).to_owned()));
    }
    // By rate: worth a move where the busiest is over a tenth above the mean, and the move makes it better by as much.
    let mean = total / loads.len() as f64;
    let (busiest, busy_rows) = loads.iter().max_by(|a, b| rate(a.1).total_cmp(&rate(b.1)))?;
    let (idlest, idle_rows) = loads.iter().filter(|(w, _)| living.contains(**w)).min_by(|a, b| rate(a.1).total_cmp(&rate(b.1)))?;
    let (high, low) = (rate(busy_rows), rate(idle_rows));
    if !by_rate || busiest == idlest || busy_rows.len() < 2 || high < mean * 1.1 || mean < 1.0 {
        return None;
    }
    let after = |r: &&&Row| (high - r.throughput_kbps.unwrap_or(0.0)).max(low + r.throughput_kbps.unwrap_or(0.0));
    let row = busy_rows.iter().min_by(|a, b| after(a).total_cmp(&after(b)))?;
    let keeps_count = busy_rows.len() >= idle_rows.len();
    (after(&row) < high - mean * 0.1 && keeps_count).then(|| (*row, (*idlest).to_owned()))
}

/// Leases that have been finished for `linger` and whose children have all begun, and leases whose shard the service no longer lists
/// (`listed`: of this stream, by shard).
pub fn to_delete<'a>(seen: &[&Seen<'a>], listed: &BTreeSet<&str>, linger: Duration) -> Vec<&'a Row> {
    let rows: Vec<&Row> = seen.iter().map(|s| s.row).collect();
    let by_shard: BTreeMap<&str, &Row> = rows.iter().map(|r| (r.shard(), *r)).collect();
    let begun = |shard: &String| by_shard.get(shard.as_str()).is_some_and(|r| *r.position() != crate::position::Position::TrimHorizon);
    let children = |row: &Row| rows.iter().filter(|r| r.parents.iter().any(|p| p == row.shard())).map(|r| r.shard().to_owned()).collect::<Vec<_>>();
    let is_done = |row: &Row| {
        let known = if row.children.is_empty() { children(row) } else { row.children.clone() };
        row.is_finished() && !known.is_empty() && known.iter().all(begun)
    };
    let is_over = |s: &Seen<'_>| s.unmoved >= linger && is_done(s.row) || !listed.contains(s.row.shard());
    seen.iter().filter(|s| is_over(s)).map(|s| s.row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    const LIMITS: Limits = Limits { failover: Duration::from_secs(10), tick: Duration::from_secs(1), settle: Duration::from_secs(20), most: 100 };

    /// `key:reader[>next]:unmoved_s[:kbps]`, `!` behind the key: finished. What `me` reads it holds, unless the key is a capital.
    fn rows(text: &str) -> Vec<(Row, Duration)> {
        text.split_whitespace()
            .map(|word| {
                let mut parts = word.split(':');
                let (key, owner) = (parts.next().unwrap(), parts.next().unwrap());
                let unmoved = Duration::from_secs(parts.next().map_or(0, |s| s.parse().unwrap()));
                let throughput_kbps = parts.next().map(|t| t.parse().unwrap());
                let some = |t: &str| (!t.is_empty()).then(|| t.to_owned());
                let (reader, next) = owner.split_once('>').map_or((None, owner), |(r, n)| (some(r), n));
                let checkpoint = key.ends_with('!').then_some(Position::ShardEnd);
                let key = key.trim_end_matches('!').to_owned();
                let row = Row { key, owner: some(next), checkpoint_owner: reader, checkpoint, throughput_kbps, ..Row::default() };
                (row, unmoved)
            })
            .collect()
    }

    fn see(row: &Row, unmoved: Duration) -> Seen<'_> {
        Seen { row, unmoved, kept: LIMITS.settle, ready: true, held: false }
    }

    fn living(text: &str) -> BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn workers_take_their_share_and_what_is_left_lying() {
        for (table, alive, expected) in [
            ("a: b: c: d:", "me", 4),
            ("a: b: c: d:", "me you", 2),
            ("a: b: c: d:", "me you he she", 1),
            ("a::3 b::3 c::3 d::3", "me you", 4),
            ("a:you:1 b:you:1", "me you", 0),
            ("a:you:11 b:you:11 c:me d:me", "me you", 2),
            ("a:you:11 b:you:11 c:me d:he", "me you he", 1),
            ("a!: b!::50", "me", 0),
            ("a:me:0", "me", 0),
            ("A:me:0", "me", 1),
            ("A:you>me:0", "me you", 0),
            ("a:me:11", "me", 1),
            ("a:you>me:1", "me you", 0),
            ("a:you>me:11", "me you", 1),
            ("a:me>you:11", "me you", 1),
        ] {
            let rows = rows(table);
            let held = |row: &Row| row.reader() == Some("me") && row.key.chars().all(char::is_lowercase);
            let seen: Vec<_> = rows.iter().map(|(row, unmoved)| Seen { held: held(row), ..see(row, *unmoved) }).collect();
            assert_eq!(to_take(&seen, "me", &living(alive), &LIMITS).len(), expected, "{table} {alive}");
        }
    }

    #[test]
    fn load_is_evened_out_by_count_then_by_rate() {
        for (table, alive, expected) in [
            ("a:x b:x", "x y", Some("y")),
            ("a:x b:x c:y", "x y", None),
            ("a:x b:x c:x d:y", "x y", Some("y")),
            ("a:x b:x c:z>x", "x y", None),
            ("a:x b:x c:x::", "x", None),
            ("a:x:0:900 b:x:0:800 c:y:0:10 d:y:0:10", "x y", Some("y")),
            ("a:x:0:500 b:x:0:500 c:y:0:500 d:y:0:480", "x y", None),
            ("a:x:0:900 b:y:0:10", "x y", None),
            ("a:x b:x:11", "x y", None),
        ] {
            let table_text = table.trim_end_matches(':');
            let rows = rows(table_text);
            let seen: Vec<_> = rows.iter().map(|(row, unmoved)| see(row, *unmoved)).collect();
            assert_eq!(to_hand_over(&seen, &living(alive), &LIMITS, true).map(|(_, to)| to).as_deref(), expected, "{table}");
        }
    }

    #[test]
    fn what_waits_for_its_parents_is_nobodys_load() {
        let rows = rows("a: b:me c:x d:x");
        let seen = |waiting: &str| -> Vec<_> {
            let held = |row: &Row| row.reader() == Some("me");
            rows.iter().map(|(row, unmoved)| Seen { ready: !waiting.contains(&row.key), held: held(row), ..see(row, *unmoved) }).collect()
        };
        let taken = |waiting| to_take(&seen(waiting), "me", &living("me x"), &LIMITS).len();
        assert_eq!([taken(""), taken("a"), taken("bcd")], [1, 0, 1]);
        let handed = |waiting| to_hand_over(&seen(waiting), &living("me x y"), &LIMITS, true).map(|(row, to)| format!("{}>{to}", row.key));
        assert_eq!([handed("a"), handed("ac"), handed("")], [Some("c>y".to_owned()), None, None]);
    }

    #[test]
    fn what_was_just_taken_is_not_handed_on() {
        let rows = rows("a:x b:x");
        let seen = |kept| rows.iter().map(|(row, unmoved)| Seen { kept, ..see(row, *unmoved) }).collect::<Vec<_>>();
        let handed = |kept| to_hand_over(&seen(Duration::from_secs(kept)), &living("x y"), &LIMITS, true).is_some();
        assert_eq!([handed(19), handed(20)], [false, true]);
    }

    #[test]
    fn what_is_over_is_deleted() {
        let row = |key: &str, checkpoint, parents: &str| Row {
            key: key.to_owned(),
            checkpoint: Some(checkpoint),
            parents: parents.split_whitespace().map(str::to_owned).collect(),
            ..Row::default()
        };
        for (child, listed, unmoved, expected) in [
            (Position::TrimHorizon, "p c", 9, ""),
            (Position::Latest, "p c", 9, "p"),
            (Position::Latest, "p c", 8, ""),
            (Position::ShardEnd, "p c", 9, "p"),
            (Position::TrimHorizon, "c", 0, "p"),
        ] {
            let (parent, child) = (row("p", Position::ShardEnd, ""), row("c", child, "p"));
            let listed = listed.split(' ').collect();
            let [parent, child] = [(&parent, unmoved), (&child, 0)].map(|(row, s)| see(row, Duration::from_secs(s)));
            let got: Vec<_> = to_delete(&[&parent, &child], &listed, Duration::from_secs(9)).into_iter().map(|r| r.key.clone()).collect();
            assert_eq!(got.join(" "), expected);
        }
    }
}
