//! Where the latest combinations of routing values led to.
//!
//! In: an event's text and `Routing`. Out: the `Place` that the same values had before. Invariant: an answer stands for the very same
//! values; what isn't found here is found by `Memo`, which this only goes before: no copy, no keyed hash, one or two cache lines.

use super::compile::{MEMO_FIELDS, early};
use super::index::Place;
use crate::event::{Known, Routing};

/// A power of two.
const SLOTS: usize = 1 << 11;
/// Of all values together.
const TEXT_BYTES: usize = 104;
/// Of one value.
const MAX_LENGTH: u16 = 200;

/// The slots are taken by a digest that is cheap and can be aimed at: two combinations of one slot only push each other out.
#[derive(Debug, Default)]
pub(super) struct Latest {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot {
    /// Of no combination: 0.
    shape: u64,
    place: Place,
    text: [u8; TEXT_BYTES],
}

/// An event's values.
pub(super) struct Combination<'a> {
    /// Of each value a byte: unknown, missing, or its length and 2.
    shape: u64,
    digest: u64,
    values: [&'a [u8]; MEMO_FIELDS],
}

impl<'a> Combination<'a> {
    /// `None` where a value is too long to be remembered here.
    #[inline]
    pub fn of(body: &'a [u8], routing: &Routing) -> Option<Self> {
        let (mut shape, mut digest) = (1u64, 0u64);
        let mut values = [&[][..]; MEMO_FIELDS];
        for (value, known) in values.iter_mut().zip(early(routing)) {
            let code = match *known {
                Known::Unknown => 0,
                Known::Missing => 1,
                Known::Text { length, .. } if length <= MAX_LENGTH => {
                    *value = known.text(body)?;
                    digest = (digest ^ ends(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    u64::from(length) + 2
                }
                Known::Text { .. } => return None,
            };
            shape = shape << 8 | code;
        }
        digest = (digest ^ shape).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Self { shape, digest, values })
    }
}

impl Latest {
    #[inline]
    pub fn find(&self, sought: &Combination<'_>) -> Option<Place> {
        let slot = self.slots.get(slot_of(sought))?;
        if slot.shape != sought.shape {
            return None;
        }
        let mut rest = &slot.text[..];
        for value in sought.values {
            let (own, behind) = rest.split_at_checked(value.len())?;
            if !same(own, value) {
                return None;
            }
            rest = behind;
        }
        Some(slot.place)
    }

    pub fn keep(&mut self, combination: &Combination<'_>, place: Place) {
        let length: usize = combination.values.iter().map(|value| value.len()).sum();
        if length > TEXT_BYTES {
            return;
        }
        if self.slots.is_empty() {
            self.slots = vec![Slot { shape: 0, place, text: [0; TEXT_BYTES] }; SLOTS];
        }
        let slot = &mut self.slots[slot_of(combination)];
        (slot.shape, slot.place) = (combination.shape, place);
        let mut at = 0;
        for value in combination.values {
            slot.text[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        }
    }
}

#[inline]
fn slot_of(combination: &Combination<'_>) -> usize {
    (combination.digest >> 48) as usize & (SLOTS - 1)
}

/// The first and the last eight bytes, mixed.
#[inline]
fn ends(text: &[u8]) -> u64 {
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => text.iter().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)),
    }
}

/// Equality of short texts, without a call.
#[inline]
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    let eight = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    if one.len() != other.len() {
        return false;
    }
    let ((chunks, rest), (others, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let equal = chunks.iter().zip(others).all(|(a, b)| eight(a) == eight(b));
    equal
        && match (one.last_chunk(), other.last_chunk()) {
            (Some(a), Some(b)) => eight(a) == eight(b),
            _ => rest.iter().zip(other_rest).all(|(a, b)| a == b),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(lengths: [usize; 3]) -> Routing {
        let [source, name, kind] = lengths;
        let text = |start: usize, length: usize| Known::Text { start: start as u32, length: length as u16 };
        Routing {
            event_source: text(0, source),
            event_name: text(source, name),
            identity_type: text(source + name, kind),
            error_code: Known::Missing,
            ..Routing::default()
        }
    }

    #[test]
    fn only_the_same_values_are_found() {
        let mut latest = Latest::default();
        let body = "rds.amazonaws.comDeleteDBInstanceIAMUser".as_bytes();
        let place = |list| Place { list, serial: list };
        let first = Combination::of(body, &routing([17, 16, 7])).unwrap();
        assert!(latest.find(&first).is_none());
        latest.keep(&first, place(7));
        assert_eq!(latest.find(&first).unwrap().list, 7);
        // One letter further in, other lengths, an error more, and each letter changed.
        let found = |latest: &Latest, body: &[u8], routing: &Routing| latest.find(&Combination::of(body, routing).unwrap()).is_some();
        assert!(!found(&latest, body, &routing([18, 15, 7])));
        assert!(!found(&latest, body, &Routing { error_code: Known::Unknown, ..routing([17, 16, 7]) }));
        for at in 0..body.len() {
            let mut other = body.to_vec();
            other[at] ^= 1;
            assert!(!found(&latest, &other, &routing([17, 16, 7])), "{at}");
        }
        // What doesn't fit is left to others.
        let long = [b'a'; 400];
        assert!(Combination::of(&long, &routing([300, 16, 7])).is_none());
        let wide = Combination::of(&long, &routing([90, 90, 7])).unwrap();
        latest.keep(&wide, place(8));
        assert!(latest.find(&wide).is_none());
    }
}
