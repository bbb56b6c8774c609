//! The values of one event, by field.
//!
//! In: what `json::fill`, a log parser or `derived` found. Out: values in the order of the text. Invariant: spans point into the
//! event's text or into the arena of the same `Slots`; both live as long as the event is looked at.

use super::schema::FieldId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Text without escapes, in the event's bytes.
    Text,
    /// Text whose escapes were resolved, in the arena.
    Unescaped,
    Number,
    True,
    False,
    Null,
    /// The raw text of an object.
    Object,
    /// An array with nothing in it: the field exists, no test on a value holds.
    EmptyArray,
}

#[derive(Debug, Clone, Copy)]
pub struct Value {
    pub kind: ValueKind,
    pub start: u32,
    pub end: u32,
    /// Found under a key with dots in it: counts only where the proper path gave nothing.
    pub fallback: bool,
    next: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Slot {
    epoch: u32,
    first: u32,
    last: u32,
    proper: bool,
}

/// Reused from event to event; its memory is that of the largest event seen.
#[derive(Debug, Default)]
pub struct Slots {
    epoch: u32,
    slots: Vec<Slot>,
    values: Vec<Value>,
    pub(super) arena: Vec<u8>,
}

impl Slots {
    /// Forgets the last event; `fields` is the schema's length.
    pub fn begin(&mut self, fields: usize) {
        if self.slots.len() < fields {
            self.slots.resize(fields, Slot { epoch: 0, first: NONE, last: NONE, proper: false });
        }
        self.values.clear();
        self.arena.clear();
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.slots.iter_mut().for_each(|s| s.epoch = 0);
            self.epoch = 1;
        }
    }

    pub fn push(&mut self, field: FieldId, kind: ValueKind, start: u32, end: u32, fallback: bool) {
        let index = self.values.len() as u32;
        self.values.push(Value { kind, start, end, fallback, next: NONE });
        let slot = &mut self.slots[usize::from(field.0)];
        if slot.epoch == self.epoch {
            self.values[slot.last as usize].next = index;
            slot.last = index;
            slot.proper |= !fallback;
        } else {
            *slot = Slot { epoch: self.epoch, first: index, last: index, proper: !fallback };
        }
    }

    pub(super) fn last_index(&self) -> usize {
        self.values.len() - 1
    }

    pub(super) fn set_end(&mut self, value: usize, end: u32) {
        self.values[value].end = end;
    }

    /// A value that the event's bytes don't hold.
    pub fn push_text(&mut self, field: FieldId, text: &[u8]) {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(text);
        self.push(field, ValueKind::Unescaped, start, self.arena.len() as u32, false);
    }

    /// The values of a field in the order of the text; none if it is missing.
    pub fn get(&self, field: FieldId) -> impl Iterator<Item = &Value> {
        let slot = self.slots.get(usize::from(field.0)).filter(|s| s.epoch == self.epoch);
        let proper = slot.is_some_and(|s| s.proper);
        let mut next = slot.map_or(NONE, |s| s.first);
        std::iter::from_fn(move || {
            loop {
                let value = self.values.get(next as usize)?;
                next = value.next;
                if !(proper && value.fallback) {
                    return Some(value);
                }
            }
        })
    }

    pub fn is_present(&self, field: FieldId) -> bool {
        self.get(field).next().is_some()
    }

    /// A scalar's text: `true`, `12`, `abc`; an object's raw text; nothing for null and empty arrays.
    pub fn text<'a>(&'a self, body: &'a [u8], value: &Value) -> Option<&'a [u8]> {
        let span = value.start as usize..value.end as usize;
        match value.kind {
            ValueKind::Text | ValueKind::Number | ValueKind::Object => body.get(span),
            ValueKind::Unescaped => self.arena.get(span),
            ValueKind::True => Some(b"true"),
            ValueKind::False => Some(b"false"),
            ValueKind::Null | ValueKind::EmptyArray => None,
        }
    }

    /// The first value's text.
    pub fn first<'a>(&'a self, body: &'a [u8], field: FieldId) -> Option<&'a [u8]> {
        self.get(field).next().and_then(|v| self.text(body, v))
    }
}
