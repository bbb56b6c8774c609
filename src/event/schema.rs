//! The fields that loaded rules name, as small numbers, and the tree of keys that leads to them.
//!
//! In: field names as rules write them. Out: `FieldId`s and the `Tree` that guides `json::fill`. Invariant: a name has one id.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Names a field within one schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u16);

/// Dots beyond this many in a name are path steps only, never part of a key.
const MAX_LITERAL_STEPS: usize = 5;
/// Names of one schema: some ten times those that all of the public rules have. A name adds at most eight keys to the root.
pub const MAX_FIELDS: usize = 8_000;

#[derive(Debug, Clone, Default)]
pub struct Schema {
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, FieldId, RandomState>,
    nodes: Vec<Node>,
    /// `derived.foreign_account.<field>`: the field and the derived one.
    foreign: Vec<(FieldId, FieldId)>,
    /// Accounts that are foreign to none: one own account among strangers must not excuse them, so it is left out here, not by rules.
    pub own_accounts: Vec<AccountId>,
}

/// Index of a node; 0 is the root.
pub type NodeId = u32;

#[derive(Debug, Clone, Default)]
struct Node {
    children: Vec<(Box<[u8]>, NodeId)>,
    /// Open addressing over `children`, a power of two with at least half of it free: index + 1, 0 is free.
    table: Box<[u16]>,
    /// Of each child, by which it is found.
    digests: Vec<Digest>,
    /// The field that ends here, and whether every dot of its name was a step (else it is the fallback of B1 in SIGMA.md).
    field: Option<(FieldId, bool)>,
    /// Bit n: some child's key has n bytes (63 stands for 63 and more): most keys are dismissed by it.
    lengths: u64,
}

/// The twelve digits of an account's number.
pub type AccountId = [u8; 12];

impl Schema {
    pub fn new() -> Self {
        Self { nodes: vec![Node::default()], ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A name that was added since may have been lost.
    pub fn is_full(&self) -> bool {
        self.names.len() >= MAX_FIELDS
    }

    pub fn name(&self, id: FieldId) -> &str {
        &self.names[usize::from(id.0)]
    }

    /// The fields whose foreign accounts are wanted, and where they go.
    pub(super) fn foreign(&self) -> &[(FieldId, FieldId)] {
        &self.foreign
    }

    pub fn id(&self, name: &str) -> Option<FieldId> {
        self.ids.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &str)> {
        self.names.iter().enumerate().map(|(i, name)| (FieldId(i as u16), &**name))
    }

    /// The id of `name`, new or old.
    ///
    /// A full schema takes no more names; whoever compiles into it has to ask `is_full`, and refuse.
    pub fn add(&mut self, name: &str) -> FieldId {
        if let Some(id) = self.id(name) {
            return id;
        }
        if self.is_full() {
            return FieldId(0);
        }
        let id = FieldId(u16::try_from(self.names.len()).expect("fewer than MAX_FIELDS"));
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        if let Some(source) = super::derived::foreign_source(name) {
            let source = self.add(source);
            self.foreign.push((source, id));
        } else if !name.starts_with("derived.") {
            self.insert(name, id);
        }
        id
    }

    /// Every way to read the dots of `name`, as a step or as part of a key.
    fn insert(&mut self, name: &str, id: FieldId) {
        let steps: Vec<&str> = name.split('.').collect();
        let joints = steps.len() - 1;
        let ways = if joints <= MAX_LITERAL_STEPS { 1u32 << joints } else { 1 };
        for way in 0..ways {
            let mut node = 0;
            let mut key = steps[0].to_owned();
            for (joint, step) in steps[1..].iter().enumerate() {
                if way >> joint & 1 == 1 {
                    key.push('.');
                    key.push_str(step);
                } else {
                    node = self.child_or_new(node, key.as_bytes());
                    key = (*step).to_owned();
                }
            }
            node = self.child_or_new(node, key.as_bytes());
            self.nodes[node as usize].field = Some((id, way == 0));
        }
    }

    fn child_or_new(&mut self, node: NodeId, key: &[u8]) -> NodeId {
        if let Some(found) = self.child(node, key) {
            return found;
        }
        let new = self.nodes.len() as NodeId;
        self.nodes.push(Node::default());
        self.nodes[node as usize].add(key, new);
        new
    }

    #[inline]
    pub(super) fn child(&self, node: NodeId, key: &[u8]) -> Option<NodeId> {
        let node = &self.nodes[node as usize];
        if node.lengths & length_bit(key) == 0 {
            return None;
        }
        let digest = Digest::of(key);
        let mut at = digest.slot();
        loop {
            let child = usize::from(node.table[at & (node.table.len() - 1)]).checked_sub(1)?;
            if node.digests[child] == digest && (key.len() <= 16 || *node.children[child].0 == *key) {
                return Some(node.children[child].1);
            }
            at += 1;
        }
    }

    #[inline]
    pub(super) fn field(&self, node: NodeId) -> Option<(FieldId, bool)> {
        self.nodes[node as usize].field
    }

    #[inline]
    pub(super) fn is_leaf(&self, node: NodeId) -> bool {
        self.nodes[node as usize].children.is_empty()
    }
}

#[inline]
fn length_bit(key: &[u8]) -> u64 {
    1 << key.len().min(63)
}

impl Node {
    fn add(&mut self, key: &[u8], child: NodeId) {
        self.children.push((key.into(), child));
        self.digests.push(Digest::of(key));
        self.lengths |= length_bit(key);
        let size = (self.children.len() * 2).next_power_of_two();
        let grown = size > self.table.len();
        if grown {
            self.table = vec![0; size].into();
        }
        // A grown table takes all children anew, one with room the last only.
        let first = if grown { 0 } else { self.digests.len() - 1 };
        for (index, digest) in self.digests.iter().enumerate().skip(first) {
            let mut at = digest.slot();
            while self.table[at & (size - 1)] != 0 {
                at += 1;
            }
            self.table[at & (size - 1)] = u16::try_from(index + 1).expect("MAX_FIELDS names have fewer first keys");
        }
    }
}

/// A key's length, its first and its last eight bytes: up to sixteen bytes that is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    first: u64,
    last: u64,
    length: usize,
}

impl Digest {
    #[inline]
    fn of(key: &[u8]) -> Self {
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        let (first, last) = match (key.first_chunk(), key.last_chunk(), key.first_chunk(), key.last_chunk()) {
            (Some(first), Some(last), ..) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            (None, None, Some(first), Some(last)) => (four(first), four(last)),
            _ => (key.iter().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)), 0),
        };
        Self { first, last, length: key.len() }
    }

    #[inline]
    fn slot(&self) -> usize {
        let mixed = (self.first ^ self.last.rotate_left(23) ^ self.length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 40) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_schema_says_so_and_takes_no_more() {
        let mut schema = Schema::new();
        for n in 0..MAX_FIELDS + 100 {
            assert_eq!(schema.is_full(), n >= MAX_FIELDS);
            schema.add(&format!("a{n}.b.c.d.e.f"));
        }
        assert_eq!(schema.len(), MAX_FIELDS);
    }

    #[test]
    fn dots_are_steps_first_and_letters_second() {
        let mut schema = Schema::new();
        let id = schema.add("a.b.c");
        assert_eq!(schema.add("a.b.c"), id);
        let walk = |keys: &[&str]| keys.iter().try_fold(0, |node, key| schema.child(node, key.as_bytes())).and_then(|n| schema.field(n));
        assert_eq!(walk(&["a", "b", "c"]), Some((id, true)));
        assert_eq!(walk(&["a", "b.c"]), Some((id, false)));
        assert_eq!(walk(&["a.b.c"]), Some((id, false)));
        assert_eq!(walk(&["a", "b"]), None);
    }
}
