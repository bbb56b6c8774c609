//! A view of rows that several workers change: what one batch has read, and the proof that it still stood at the commit.
//!
//! In: reads and one batch of changes of a keeper. Out: the rows, each group read as a whole, and a commit that is refused
//! with `Conflict` where another worker was first. Invariant: no change of a group is kept that was judged without the
//! group's evidence as it stood when the change was made.
//!
//! A group of evidence has a version row. A batch remembers the version of each group that it read; its commit puts a new
//! one on each group that it changes and is conditioned on the old. Issued ids and rows of `Meta` are conditioned on what was
//! read of them. Of two workers that add to one window, the second therefore reads again and sees the first one's items, so
//! whichever completes the window fires it. A batch that only met known items changes nothing and needs no proof: whoever
//! adds to its windows later evaluates them then.
//!
//! A store takes at most `Store::batch_changes` in one transaction. What is more goes in several, in an order that a repeat of the
//! same records completes: timers, then evidence, then all ids with their alerts (in one), then runs, which note what was judged,
//! then what is taken away. Only the changes of one step of the keeper may be split so: several steps together can hide in
//! their sum what a repeat needs, such as a timer that was set and met.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, ControlFlow},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::{Change, Guard, Result, Store, StoreError, Table, VERSION, Visit, version_key};

/// Bytes of one transaction: DynamoDB takes 4 MB, names and overhead included.
const BATCH_BYTES: usize = 3 << 20;

type Id = [u8; 16];
type Bytes = Box<[u8]>;
type Key = (Table, Bytes);

struct Seen {
    version: Option<Bytes>,
    rows: BTreeMap<Key, Bytes>,
}

#[derive(Default)]
struct View {
    groups: HashMap<Id, Seen, RandomState>,
    /// Issued ids and rows of `Meta` as they were read.
    rows: HashMap<Key, Option<Bytes>, RandomState>,
}

/// See the module. One for each keeper.
pub struct SharedView {
    store: Arc<dyn Store>,
    view: Mutex<View>,
    /// Tells this view's versions from all others'.
    own: u64,
    versions: AtomicU64,
    /// A batch that doesn't fit one transaction is given back.
    whole: AtomicBool,
}

/// The group whose rows are read together with this one.
fn group_of(table: Table, key: &[u8]) -> Option<Id> {
    match table {
        Table::Evidence | Table::Groups => key.first_chunk().copied(),
        Table::Fired => key.strip_prefix(b"c")?.first_chunk().copied(),
        Table::Meta => key.strip_prefix(VERSION)?.try_into().ok(),
        _ => None,
    }
}

fn is_guarded(table: Table) -> bool {
    matches!(table, Table::Fired | Table::Meta)
}

impl SharedView {
    pub fn new(store: Arc<dyn Store>) -> Self {
        use std::hash::BuildHasher;
        let own = std::collections::hash_map::RandomState::new().hash_one(std::process::id());
        Self { store, view: Mutex::default(), own, versions: AtomicU64::new(0), whole: AtomicBool::new(false) }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether what doesn't fit one transaction is refused with `Conflict`, instead of split.
    pub fn set_whole(&self, whole: bool) {
        self.whole.store(whole, Ordering::Relaxed);
    }

    /// The next reads are fresh.
    pub fn forget(&self) {
        *self.lock() = View::default();
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load<'v>(&self, view: &'v mut View, group: &Id) -> Result<&'v mut Seen> {
        if !view.groups.contains_key(group) {
            let mut seen = Seen { version: None, rows: BTreeMap::new() };
            for (table, key, value) in self.store.group(group)? {
                if table == Table::Meta {
                    seen.version = Some(value.into());
                } else {
                    seen.rows.insert((table, key.into()), value.into());
                }
            }
            view.groups.insert(*group, seen);
        }
        Ok(view.groups.get_mut(group).expect("it was just put there"))
    }

    fn version(&self) -> Bytes {
        [self.own.to_be_bytes(), self.versions.fetch_add(1, Ordering::Relaxed).to_be_bytes()].concat().into()
    }

    /// One transaction; the view then shows what it wrote.
    fn commit_once(&self, view: &mut View, mut changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let groups: BTreeSet<Id> = changes.iter().filter_map(|c| group_of(c.table(), key(c))).collect();
        let mut guards = Vec::new();
        let mut versions = Vec::new();
        for group in groups {
            let (key, next): (Bytes, Bytes) = (version_key(&group).into(), self.version());
            guards.push(Guard { table: Table::Meta, key: key.clone(), value: self.load(view, &group)?.version.clone() });
            versions.push((group, next.clone()));
            changes.push(Change::Put { table: Table::Meta, key, value: next });
        }
        for change in changes.iter().filter(|c| is_guarded(c.table())) {
            let at = (change.table(), key(change).into());
            if let Some(value) = view.rows.get(&at) {
                guards.push(Guard { table: at.0, key: at.1, value: value.clone() });
            }
        }
        let kept: Vec<Change> = changes.iter().filter(|c| c.table() != Table::Timers && c.table() != Table::Outbox).cloned().collect();
        if !self.store.commit_if(&guards, changes)? {
            return Err(StoreError::Conflict);
        }
        for (group, version) in versions {
            self.load(view, &group)?.version = Some(version);
        }
        kept.into_iter().for_each(|change| view.apply(change));
        Ok(())
    }
}

impl View {
    /// Without the groups whose rows would stay as they are. Where a group changes, all its rows are written: they then live as long as it.
    fn news(&self, changes: Vec<Change>) -> Vec<Change> {
        let is_news = |change: &Change, seen: &Seen| match change {
            Change::Put { table, key, value } => seen.rows.get(&(*table, key.clone())) != Some(value),
            Change::Delete { table, key } => seen.rows.contains_key(&(*table, key.clone())),
        };
        let group = |change: &Change| group_of(change.table(), key(change));
        let changed: BTreeSet<Id> = changes
            .iter()
            .filter_map(|change| group(change).filter(|group| self.groups.get(group).is_none_or(|seen| is_news(change, seen))))
            .collect();
        changes.into_iter().filter(|change| group(change).is_none_or(|group| changed.contains(&group))).collect()
    }

    fn apply(&mut self, change: Change) {
        let (at, value) = match change {
            Change::Put { table, key, value } => ((table, key), Some(value)),
            Change::Delete { table, key } => ((table, key), None),
        };
        match (group_of(at.0, &at.1), value) {
            (Some(_), _) if at.0 == Table::Meta => {}
            (Some(group), value) => {
                if let Some(seen) = self.groups.get_mut(&group) {
                    match value {
                        Some(value) => seen.rows.insert(at, value),
                        None => seen.rows.remove(&at),
                    };
                }
            }
            (None, value) => {
                if let Some(row) = self.rows.get_mut(&at) {
                    *row = value;
                }
            }
        }
    }
}

impl Store for SharedView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut view = self.lock();
        if let Some(group) = group_of(table, key) {
            return Ok(self.load(&mut view, &group)?.rows.get(&(table, key.into())).map(|value| value.to_vec()));
        }
        if !is_guarded(table) {
            return self.store.get(table, key);
        }
        if let Some(row) = view.rows.get(&(table, key.into())) {
            return Ok(row.as_ref().map(|value| value.to_vec()));
        }
        let found = self.store.get(table, key)?;
        view.rows.insert((table, key.into()), found.clone().map(Vec::into_boxed_slice));
        Ok(found)
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let Some(group) = group_of(table, prefix) else { return self.store.scan(table, prefix, from, visit) };
        let mut view = self.lock();
        let seen = self.load(&mut view, &group)?;
        let start = (table, Bytes::from(prefix.max(from)));
        for ((of, key), value) in seen.rows.range((Bound::Included(start), Bound::Unbounded)) {
            if *of != table || !key.starts_with(prefix) || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    /// Whole where it fits one transaction; see the module.
    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let mut view = self.lock();
        let limit = self.store.batch_changes();
        let changes = view.news(changes);
        if fitting(&changes, limit) == changes.len() {
            return self.commit_once(&mut view, changes);
        }
        if self.whole.load(Ordering::Relaxed) {
            return Err(StoreError::Conflict);
        }
        let mut stages: BTreeMap<u8, Vec<Change>> = BTreeMap::new();
        changes.into_iter().for_each(|change| stages.entry(stage(&change)).or_default().push(change));
        for (stage, mut changes) in stages {
            while !changes.is_empty() {
                // Ids and their alerts stay together: a step of the keeper issues few.
                let rest = if stage == ISSUED { Vec::new() } else { changes.split_off(fitting(&changes, limit)) };
                self.commit_once(&mut view, std::mem::replace(&mut changes, rest))?;
            }
        }
        Ok(())
    }

    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        self.store.commit_if(guards, changes)
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

fn key(change: &Change) -> &[u8] {
    match change {
        Change::Put { key, .. } | Change::Delete { key, .. } => key,
    }
}

const ISSUED: u8 = 2;

/// Where a change of an oversized batch comes; see the module.
fn stage(change: &Change) -> u8 {
    match change {
        Change::Delete { .. } => 5,
        Change::Put { table: Table::Timers, .. } => 0,
        // A row of runs notes what was judged: after the finding, never before.
        Change::Put { table: Table::Evidence, key, .. } if key.len() == 32 => 3,
        Change::Put { table: Table::Evidence | Table::Groups, .. } => 1,
        Change::Put { table: Table::Fired | Table::Outbox, .. } => ISSUED,
        Change::Put { .. } => 4,
    }
}

/// How many of the first fit one transaction; at least one.
fn fitting(changes: &[Change], limit: usize) -> usize {
    let mut groups = BTreeSet::new();
    let mut bytes = 0;
    let within = |(at, change): &(usize, &Change)| {
        groups.extend(group_of(change.table(), key(change)));
        bytes += match change {
            Change::Put { key, value, .. } => key.len() + value.len() + 64,
            Change::Delete { key, .. } => key.len() + 64,
        };
        *at == 0 || (at + 1 + groups.len() <= limit && bytes <= BATCH_BYTES)
    };
    changes.iter().enumerate().take_while(within).count()
}
