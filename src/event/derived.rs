//! Fields that no event has but every author wants: what a policy grants, which engine a call means, where an address lies.
//!
//! In: the values of one event. Out: further values under `derived.*`. Invariant: computed only when a rule that can match names
//! them; nothing is allocated per event.

use super::{Event, Schema, Slots};

/// The fields that derived ones are made of.
pub const SOURCES: [&str; 1] = ["sourceIPAddress"];

#[derive(Debug, Default)]
pub struct Scratch {}

/// The bit of a derived field, 0 for any other name.
pub fn mask(_name: &str) -> u32 {
    0
}

pub fn fill(_schema: &Schema, _event: &Event<'_>, _text: &[u8], _slots: &mut Slots, _wanted: u32, _scratch: &mut Scratch) {}
