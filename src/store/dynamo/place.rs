//! Where a row lies: partition `p` and sort key `s` of its item.
//!
//! In: table and key. Out: an item's key, and the way back. Invariant: rows of a table within one partition sort as their keys do;
//! a group's version sorts before its other rows, so a query never shows a row older than it.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Item, bytes};
use crate::store::{Table, VERSION, version_key};

/// An item's key. The first byte of the partition says its kind, that of the sort key the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    partition: Vec<u8>,
    sort: Vec<u8>,
}

pub fn group_partition(group: &[u8]) -> Vec<u8> {
    [b"g", group].concat()
}

fn one(table: Table) -> Option<&'static [u8]> {
    match table {
        Table::Timers => Some(b"t"),
        Table::Outbox => Some(b"o"),
        Table::Positions => Some(b"p"),
        Table::Meta => Some(b"m"),
        _ => None,
    }
}

/// The namespace with its end.
fn namespace(key: &[u8]) -> Option<&[u8]> {
    key.iter().position(|b| *b == 0).map(|at| &key[..=at])
}

/// The one partition in which all rows with this prefix lie; `None` where they are all over the table.
pub fn partition(table: Table, prefix: &[u8]) -> Option<Vec<u8>> {
    match table {
        Table::Evidence if prefix.len() >= 16 => Some(group_partition(&prefix[..16])),
        Table::Fired if prefix.first() == Some(&b'c') && prefix.len() >= 17 => Some(group_partition(&prefix[1..17])),
        Table::Kv => namespace(prefix).map(|name| [b"k", name].concat()),
        _ => one(table).map(<[u8]>::to_vec),
    }
}

impl Place {
    pub fn of(table: Table, key: &[u8]) -> Self {
        let at = |partition: Vec<u8>, kind: u8, rest: &[u8]| Self { partition, sort: [&[kind], rest].concat() };
        match (table, key.len()) {
            (Table::Evidence, 16..) => at(group_partition(&key[..16]), b'e', &key[16..]),
            (Table::Groups, 16) => at(group_partition(key), b'g', &[]),
            (Table::Fired, 17..) if key[0] == b'c' => at(group_partition(&key[1..17]), b'c', &key[17..]),
            (Table::Fired, _) => at([b"i", key].concat(), b'i', &[]),
            (Table::Meta, _) if key.starts_with(VERSION) => at(group_partition(&key[VERSION.len()..]), 0, &[]),
            (Table::Kv, _) => {
                let name = namespace(key).unwrap_or_default();
                at([b"k", name].concat(), b'k', &key[name.len()..])
            }
            _ => match one(table) {
                Some(kind) => at(kind.to_vec(), kind[0], key),
                None => at(vec![b'?', table as u8], b'?', key),
            },
        }
    }

    pub fn of_item(item: &Item) -> Option<Self> {
        let part = |name| item.get(name).and_then(|value| value.as_b().ok()).map(|blob| blob.as_ref().to_vec());
        Some(Self { partition: part("p")?, sort: part("s")? })
    }

    /// The row that lies there; `None` for pieces of a large one.
    pub fn row(&self) -> Option<(Table, Vec<u8>)> {
        let (kind, home) = self.partition.split_first()?;
        let (of, rest) = self.sort.split_first()?;
        Some(match (kind, of) {
            (b'g', 0) => (Table::Meta, version_key(home.try_into().ok()?)),
            (b'g', b'c') => (Table::Fired, [b"c", home, rest].concat()),
            (b'g', b'e') => (Table::Evidence, [home, rest].concat()),
            (b'g', b'g') => (Table::Groups, home.to_vec()),
            (b'i', _) => (Table::Fired, home.to_vec()),
            (b'k', _) => (Table::Kv, [home, rest].concat()),
            (b'?', _) => (*Table::ALL.get(usize::from(*home.first()?))?, rest.to_vec()),
            _ => (Table::ALL.into_iter().find(|table| one(*table) == Some(&[*kind]))?, rest.to_vec()),
        })
    }

    pub fn is_group(&self) -> bool {
        self.partition.first() == Some(&b'g')
    }

    pub fn partition(&self) -> &[u8] {
        &self.partition
    }

    pub fn sort(&self) -> &[u8] {
        &self.sort
    }

    pub fn key(&self) -> Item {
        HashMap::from([("p".to_owned(), bytes(&self.partition)), ("s".to_owned(), bytes(&self.sort))])
    }

    /// Piece `index` of a large value.
    pub fn piece(&self, token: &str, index: usize) -> Self {
        Self { partition: [b"x", &self.partition[..]].concat(), sort: [&self.sort[..], token.as_bytes(), &(index as u32).to_be_bytes()].concat() }
    }
}

pub fn number(item: &HashMap<String, AttributeValue>, name: &str) -> Option<usize> {
    item.get(name)?.as_n().ok()?.parse().ok()
}
