//! Matches into findings over time: which state a match feeds, what is kept of it, and when that fires.
//!
//! In: rules and correlations; matches with their group and values. Out: evidence items, and the cells in which a condition
//! holds. Invariant: pure functions of the *set* of items, so order, repeats and splits can't change what is found.
//! The exact definitions stand in docs/correlation.md.

use sha2::{Digest, Sha256};

pub mod inputs;
pub mod number;
pub mod plan;
pub mod runs;
pub mod timeline;
pub mod window;

pub use inputs::{Entry, Head, Inputs};
pub use plan::{Feed, FeedId, Kind, Node, Plan};

pub use crate::rule::ast::Scope;

/// Half of a SHA-256: identities, groups, values, alert ids.
pub type Id = [u8; 16];

/// Cells are no shorter than this.
pub const HOUR_MS: i64 = 3_600_000;

/// What stands for the account in the ids of rules with `scope: organization`.
pub const ORGANIZATION: &str = "organization";

/// SHA-256 over the parts, each behind its length (u32, little endian); the first 16 bytes.
pub fn digest(parts: &[&[u8]]) -> Id {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_le_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    id
}

/// 32 lower-case hex digits.
pub fn hex(id: &Id) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// ⌊t / C⌋, also before 1970.
pub fn cell_of(time_ms: i64, cell_ms: i64) -> i64 {
    time_ms.div_euclid(cell_ms)
}

/// Id of a correlation's finding in one cell.
pub fn cell_id(rule: &str, scope: &str, group: &[u8], cell: i64) -> Id {
    digest(&[rule.as_bytes(), scope.as_bytes(), group, &cell.to_be_bytes()])
}

/// Id of a single event's finding.
pub fn single_id(rule: &str, scope: &str, identity: &Id) -> Id {
    digest(&[rule.as_bytes(), scope.as_bytes(), identity])
}

/// Id of a value never seen before.
pub fn value_id(rule: &str, scope: &str, group: &[u8], value: &[u8]) -> Id {
    digest(&[rule.as_bytes(), scope.as_bytes(), group, value])
}

/// Id of a silence, by the last arrival before it.
pub fn silence_id(rule: &str, scope: &str, group: &[u8], last_ms: i64) -> Id {
    digest(&[rule.as_bytes(), scope.as_bytes(), group, &last_ms.to_be_bytes()])
}

/// Appends one value of a tuple (group or value fields): missing and empty differ, and no two tuples share their bytes.
pub fn push_value(tuple: &mut Vec<u8>, value: Option<&str>) {
    match value {
        None => tuple.push(0),
        Some(text) => {
            tuple.push(1);
            tuple.extend_from_slice(&(text.len() as u32).to_be_bytes());
            tuple.extend_from_slice(text.as_bytes());
        }
    }
}

/// The values that `push_value` wrote; bytes from elsewhere end it early.
pub fn read_values(mut tuple: &[u8]) -> Vec<Option<String>> {
    let mut values = Vec::new();
    while let Some((kind, rest)) = tuple.split_first() {
        tuple = rest;
        if *kind == 0 {
            values.push(None);
            continue;
        }
        let Some((length, rest)) = tuple.split_first_chunk::<4>() else { break };
        let Some((text, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        values.push(Some(String::from_utf8_lossy(text).into_owned()));
        tuple = rest;
    }
    values
}

/// One element of E(rule, group): never rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    pub time_ms: i64,
    pub identity: Id,
    /// Which of the correlation's rules it comes from.
    pub tag: u16,
    /// Hash of the value tuple, or a number (`number::to_bytes`), or zeros.
    pub value: Id,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_read_back_and_differ() {
        let tuple = |values: &[Option<&str>]| {
            let mut bytes = Vec::new();
            values.iter().for_each(|v| push_value(&mut bytes, *v));
            bytes
        };
        let cases: [&[Option<&str>]; 6] = [&[], &[None], &[Some("")], &[Some("a"), Some("b")], &[Some("ab")], &[None, Some("ü"), None]];
        for (i, a) in cases.iter().enumerate() {
            assert_eq!(read_values(&tuple(a)), a.iter().map(|v| v.map(str::to_owned)).collect::<Vec<_>>());
            for b in &cases[..i] {
                assert_ne!(tuple(a), tuple(b));
            }
        }
        assert_eq!(read_values(&[1, 0, 0, 0, 9, b'x']), []);
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!((cell_of(-1, HOUR_MS), cell_of(0, HOUR_MS), cell_of(HOUR_MS, HOUR_MS)), (-1, 0, 1));
    }
}
