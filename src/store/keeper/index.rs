//! All groups in memory, 24 bytes each: enough to know a new one, to expire and to hold quotas.
//!
//! In: items as they come. Out: whether a group is known, which groups to give up where a quota is full. Invariant: a table
//! slot and its control byte cost at most 58 bytes a group (`benches/state.rs` measures it).

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::correlate::Id;

/// Items of a group are counted up to here.
const MAX_ITEMS: u64 = 4095;
/// Buckets (rule × account) that can be told apart.
const MAX_BUCKETS: usize = 1 << 20;

/// Newest item in seconds (32 bits), bucket (20), items (12). Two halves keep the slot at 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot(u32, u32);

impl Slot {
    fn new(newest_s: u32, bucket: u32, items: u64) -> Self {
        Self(newest_s, bucket << 12 | items.min(MAX_ITEMS) as u32)
    }

    fn bucket(self) -> u32 {
        self.1 >> 12
    }

    fn items(self) -> u64 {
        u64::from(self.1 & 0xfff)
    }
}

/// Items of one rule in one account (or the organization).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub node: usize,
    pub scope: Box<str>,
    pub items: u64,
    pub groups: u64,
}

#[derive(Default)]
pub struct Index {
    slots: HashMap<Id, Slot, RandomState>,
    buckets: Vec<Bucket>,
    places: HashMap<(usize, Box<str>), u32>,
}

/// Whole seconds, rounded up so that nothing expires early.
fn seconds(time_ms: i64) -> u32 {
    u32::try_from(time_ms.div_euclid(1000).saturating_add(1).max(0)).unwrap_or(u32::MAX)
}

impl Index {
    /// Groups.
    pub fn groups(&self) -> usize {
        self.slots.len()
    }

    pub fn bytes(&self) -> u64 {
        (self.slots.capacity() * (size_of::<(Id, Slot)>() + 1)) as u64
    }

    pub fn items(&self) -> u64 {
        self.buckets.iter().map(|b| b.items).sum()
    }

    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    pub fn knows(&self, group: &Id) -> bool {
        self.slots.contains_key(group)
    }

    /// The number of a rule's account; beyond `MAX_BUCKETS` the last one serves all.
    pub fn bucket(&mut self, node: usize, scope: &str) -> u32 {
        if let Some(place) = self.places.get(&(node, scope) as &dyn Place) {
            return *place;
        }
        if self.buckets.len() == MAX_BUCKETS {
            return MAX_BUCKETS as u32 - 1;
        }
        let place = self.buckets.len() as u32;
        self.buckets.push(Bucket { node, scope: scope.into(), items: 0, groups: 0 });
        self.places.insert((node, scope.into()), place);
        place
    }

    /// Counts an item; true where its group is new.
    pub fn add(&mut self, group: Id, bucket: u32, time_ms: i64) -> bool {
        let home = &mut self.buckets[bucket as usize];
        home.items += 1;
        let newest = seconds(time_ms);
        match self.slots.get_mut(&group) {
            Some(slot) => {
                *slot = Slot::new(slot.0.max(newest), slot.bucket(), slot.items() + 1);
                false
            }
            None => {
                home.groups += 1;
                self.slots.insert(group, Slot::new(newest, bucket, 1));
                true
            }
        }
    }

    /// A newer time of a group whose rows are rewritten, not added to.
    pub fn touch(&mut self, group: &Id, time_ms: i64) {
        if let Some(slot) = self.slots.get_mut(group) {
            slot.0 = slot.0.max(seconds(time_ms));
        }
    }

    /// `items` rows of the group are gone.
    pub fn shrink(&mut self, group: &Id, items: u64) {
        if let Some(slot) = self.slots.get_mut(group) {
            let home = &mut self.buckets[slot.bucket() as usize];
            home.items = home.items.saturating_sub(items);
            // A group at the counter's end keeps saying so: it errs towards being big.
            let left = if slot.items() == MAX_ITEMS { MAX_ITEMS } else { slot.items().saturating_sub(items).max(1) };
            *slot = Slot::new(slot.0, slot.bucket(), left);
        }
    }

    /// `items`: how many rows went with it.
    pub fn remove(&mut self, group: &Id, items: u64) {
        if let Some(slot) = self.slots.remove(group) {
            let home = &mut self.buckets[slot.bucket() as usize];
            home.items = home.items.saturating_sub(items);
            home.groups = home.groups.saturating_sub(1);
        }
    }

    /// Groups whose newest item lies before what `keep_from_ms` says of their rule, at most `limit`.
    pub fn expired(&self, limit: usize, keep_from_ms: impl Fn(usize) -> i64) -> Vec<Id> {
        let from: Vec<u32> = self.buckets.iter().map(|b| seconds(keep_from_ms(b.node))).collect();
        let old = self.slots.iter().filter(|(_, slot)| slot.0 < from[slot.bucket() as usize]);
        old.take(limit).map(|(group, _)| *group).collect()
    }

    /// Which groups a full bucket gives up, and whether each is only to lose its older half.
    ///
    /// The class of size (powers of two) that holds most of the bucket is where the flood is; the oldest of it go first.
    /// A group near its threshold is safe from a flood of groups of any other size.
    pub fn victims(&self, bucket: u32, free: u64) -> Vec<(Id, bool)> {
        let of_bucket = || self.slots.iter().filter(|(_, slot)| slot.bucket() == bucket);
        let mut mass = [0u64; 12];
        of_bucket().for_each(|(_, slot)| mass[class(*slot)] += slot.items());
        // Groups at the counter's end may hold far more than it says: what the bucket counts beyond all slots is theirs.
        let hidden = self.buckets[bucket as usize].items.saturating_sub(mass.iter().sum());
        mass[11] += hidden;
        let fullest = (0..mass.len()).max_by_key(|c| mass[*c]).unwrap_or(0);
        let mut victims: Vec<(u32, u64, Id)> =
            of_bucket().filter(|(_, slot)| class(**slot) == fullest).map(|(group, slot)| (slot.0, slot.items(), *group)).collect();
        victims.sort_unstable();
        let big = fullest == 11;
        let mut freed = 0;
        let enough = victims.iter().position(|(_, items, _)| {
            freed += if big { items / 2 } else { *items };
            freed >= free
        });
        victims.truncate(enough.map_or(victims.len(), |at| at + 1));
        victims.into_iter().map(|(_, _, group)| (group, big)).collect()
    }

    /// The bucket with the most groups.
    pub fn largest(&self) -> Option<u32> {
        (0..self.buckets.len()).max_by_key(|b| self.buckets[*b].groups).map(|b| b as u32)
    }
}

fn class(slot: Slot) -> usize {
    slot.items().max(1).ilog2() as usize
}

/// Lets `places` be asked without owning the key.
trait Place {
    fn parts(&self) -> (usize, &str);
}

impl Place for (usize, Box<str>) {
    fn parts(&self) -> (usize, &str) {
        (self.0, &self.1)
    }
}

impl Place for (usize, &str) {
    fn parts(&self) -> (usize, &str) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for dyn Place + '_ {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Place + '_ {}

impl<'a> std::borrow::Borrow<dyn Place + 'a> for (usize, Box<str>) {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> Id {
        u128::from(n).to_be_bytes()
    }

    #[test]
    fn a_slot_is_24_bytes() {
        assert_eq!(size_of::<(Id, Slot)>(), 24);
    }

    #[test]
    fn floods_do_not_push_out_groups_of_another_size() {
        let mut index = Index::default();
        let bucket = index.bucket(3, "111122223333");
        for _ in 0..4 {
            index.add(id(0), bucket, 1_000);
        }
        for n in 1..1000 {
            index.add(id(n), bucket, 2_000_000 + i64::from(n));
        }
        let victims = index.victims(bucket, 100);
        assert_eq!(victims.len(), 100);
        assert!(!victims.contains(&(id(0), false)));
        for _ in 0..5000 {
            index.add(id(5000), bucket, 3_000_000);
        }
        assert_eq!(index.victims(bucket, 100), [(id(5000), true)], "one big group loses its older half");
    }

    #[test]
    fn counts_follow() {
        let mut index = Index::default();
        let (a, b) = (index.bucket(0, "a"), index.bucket(0, "b"));
        assert_eq!((index.bucket(0, "a"), a == b), (a, false));
        assert!(index.add(id(1), a, 5_000) && !index.add(id(1), a, 1_000) && index.add(id(2), b, 9_000));
        assert_eq!(index.expired(9, |_| 7_500), [id(1)]);
        index.shrink(&id(1), 1);
        index.remove(&id(2), 1);
        assert_eq!((index.items(), index.groups(), index.knows(&id(2)), index.largest()), (1, 1, false, Some(a)));
    }
}
