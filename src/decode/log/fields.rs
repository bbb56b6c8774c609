//! The fields of one log event, reused from event to event.
//!
//! In: slices of the text that is being parsed, or text made by unescaping. Out: bytes by field. Invariant: a value is a
//! span either of that text or of the arena, so nothing is allocated once both lists have grown to the largest event.

use super::tax::Tax;

/// Where a value's bytes lie.
#[derive(Debug, Clone, Copy)]
struct Slot {
    tax: Tax,
    in_arena: bool,
    start: u32,
    end: u32,
}

/// Values by field, absent when empty. The first value of a field wins.
#[derive(Debug, Default)]
pub struct LogFields {
    slots: Vec<Slot>,
    arena: Vec<u8>,
    /// Length of the values that hold for the whole batch.
    kept: (usize, usize),
    /// Address and length of the text that spans refer to.
    text: (usize, usize),
    /// Address and length of a text in which no secret's word was found.
    clean: (usize, usize),
}

impl LogFields {
    /// Forgets everything; spans will refer to `text`, which the reader must hand in again.
    pub fn begin_batch(&mut self, text: &[u8]) {
        self.slots.clear();
        self.arena.clear();
        self.kept = (0, 0);
        self.text = (text.as_ptr().addr(), text.len());
    }

    /// What was put since `begin_batch` stays for every event of the batch.
    pub fn keep(&mut self) {
        self.kept = (self.slots.len(), self.arena.len());
    }

    /// Forgets the event before, keeps the batch's values.
    pub fn begin_event(&mut self) {
        self.slots.truncate(self.kept.0);
        self.arena.truncate(self.kept.1);
        self.clean = (0, 0);
    }

    /// Notes that no part of `text` holds a secret, so that its parts needn't be searched again. Until `begin_event` only.
    pub(super) fn note_clean(&mut self, text: &[u8]) {
        self.clean = (text.as_ptr().addr(), text.len());
    }

    /// Whether `text` is part of what was noted.
    pub(super) fn is_clean(&self, text: &[u8]) -> bool {
        let offset = text.as_ptr().addr().wrapping_sub(self.clean.0);
        offset < self.clean.1 && text.len() <= self.clean.1 - offset
    }

    /// Sets a field. Bytes of the batch's text are referred to, others are copied; empty ones are left out.
    pub fn put(&mut self, tax: Tax, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        let offset = value.as_ptr().addr().wrapping_sub(self.text.0);
        if offset < self.text.1 && value.len() <= self.text.1 - offset {
            self.slots.push(Slot { tax, in_arena: false, start: offset as u32, end: (offset + value.len()) as u32 });
        } else {
            let start = self.arena.len();
            self.arena.extend_from_slice(value);
            self.slots.push(Slot { tax, in_arena: true, start: start as u32, end: self.arena.len() as u32 });
        }
    }

    /// Sets a field to text that `write` appends to the arena.
    pub fn put_with(&mut self, tax: Tax, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.arena.len();
        write(&mut self.arena);
        if self.arena.len() > start {
            self.slots.push(Slot { tax, in_arena: true, start: start as u32, end: self.arena.len() as u32 });
        }
    }

    /// Sets a field to a number's decimal digits.
    pub fn put_number(&mut self, tax: Tax, number: u64) {
        use std::io::Write as _;
        self.put_with(tax, |arena| write!(arena, "{number}").expect("writing to memory can't fail"));
    }

    /// Replaces a field's value if it is set already.
    pub fn set(&mut self, tax: Tax, value: &[u8]) {
        self.slots.retain(|slot| slot.tax != tax);
        self.put(tax, value);
    }

    /// Whether the field has a value.
    pub fn is_set(&self, tax: Tax) -> bool {
        self.slots.iter().any(|slot| slot.tax == tax)
    }

    /// The value of a field; `text` is the batch's text.
    pub fn get<'a>(&'a self, text: &'a [u8], tax: Tax) -> Option<&'a [u8]> {
        self.slots.iter().find(|slot| slot.tax == tax).map(|slot| self.bytes(text, slot))
    }

    /// Every field that is set, batch's fields first.
    pub fn iter<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (Tax, &'a [u8])> {
        self.slots.iter().map(move |slot| (slot.tax, self.bytes(text, slot)))
    }

    fn bytes<'a>(&'a self, text: &'a [u8], slot: &Slot) -> &'a [u8] {
        let from = if slot.in_arena { &self.arena[..] } else { text };
        &from[slot.start as usize..slot.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spans_or_copies() {
        let text = b"hello world".to_vec();
        let mut fields = LogFields::default();
        fields.begin_batch(&text);
        fields.put(Tax::Engine, b"mariadb");
        fields.keep();
        for word in [&text[..5], &text[6..]] {
            fields.begin_event();
            fields.put(Tax::User, word);
            fields.put(Tax::Name, b"");
            fields.put_number(Tax::SessionPid, 42);
            let all: Vec<_> = fields.iter(&text).collect();
            assert_eq!(all, [(Tax::Engine, &b"mariadb"[..]), (Tax::User, word), (Tax::SessionPid, b"42")]);
        }
        fields.set(Tax::User, b"other");
        assert_eq!(fields.get(&text, Tax::User), Some(&b"other"[..]));
        assert_eq!(fields.get(&text, Tax::Hint), None);
    }
}
