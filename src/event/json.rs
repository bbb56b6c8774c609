//! Reads from JSON text exactly the fields of a schema.
//!
//! In: the text of one object. Out: values in `Slots`. Invariant: text that is not well-formed enough to know where each value
//! ends gives `Malformed`, never a wrong value. Strings with bad escapes or lone surrogates are repaired with U+FFFD and go on.

use super::scan::Blocks;
use super::schema::{NodeId, Schema};
use super::simd;
use super::slots::{Slots, ValueKind};

/// Objects and arrays inside each other beyond this are stepped over without looking for fields.
pub const MAX_DEPTH: usize = 128;

/// Where the text stopped making sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
}

/// Fills `slots` with the schema's fields of the object at the start of `text`; the rest of `text` must be white space.
pub fn fill(text: &[u8], schema: &Schema, slots: &mut Slots) -> Result<(), Malformed> {
    slots.begin(schema.len());
    let mut walker = Walker { text, at: 0, schema, slots };
    walker.space();
    if walker.peek() != Some(b'{') {
        return Err(walker.error());
    }
    walker.object(0, 0)?;
    walker.space();
    if walker.at < text.len() { Err(walker.error()) } else { Ok(()) }
}

struct Walker<'a, 's> {
    text: &'a [u8],
    at: usize,
    schema: &'s Schema,
    slots: &'s mut Slots,
}

impl Walker<'_, '_> {
    fn error(&self) -> Malformed {
        Malformed { at: self.at }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn object(&mut self, node: NodeId, depth: usize) -> Result<(), Malformed> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let child = self.key(node)?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error());
            }
            self.at += 1;
            self.space();
            match child {
                Some(child) => self.value(child, depth + 1)?,
                None => self.at = skip(self.text, self.at)?,
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error()),
            }
        }
    }

    /// Steps over a key and says which node it leads to.
    #[inline]
    fn key(&mut self, node: NodeId) -> Result<Option<NodeId>, Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.error());
        }
        let first = self.at + 1;
        let (end, escaped) = string(self.text, first)?;
        self.at = end + 1;
        if !escaped {
            return Ok(self.schema.child(node, &self.text[first..end]));
        }
        let mark = self.slots.arena.len();
        unescape(&self.text[first..end], &mut self.slots.arena);
        let child = self.schema.child(node, &self.slots.arena[mark..]);
        self.slots.arena.truncate(mark);
        Ok(child)
    }

    fn value(&mut self, node: NodeId, depth: usize) -> Result<(), Malformed> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => return self.string_value(node),
            Some(b'{') => {
                let at = self.slots_mark(node, start);
                if self.schema.is_leaf(node) || depth > MAX_DEPTH {
                    self.at = skip(self.text, start)?;
                } else {
                    self.object(node, depth)?;
                }
                self.slots_close(at);
                return Ok(());
            }
            Some(b'[') => return self.array(node, depth),
            Some(b't') => ValueKind::True,
            Some(b'f') => ValueKind::False,
            Some(b'n') => ValueKind::Null,
            _ => ValueKind::Number,
        };
        self.at = skip(self.text, start)?;
        self.push(node, kind, start, self.at);
        Ok(())
    }

    /// Reserves an object's value before its members are read, so that values keep the order of the text.
    fn slots_mark(&mut self, node: NodeId, start: usize) -> Option<usize> {
        let (field, proper) = self.schema.field(node)?;
        self.slots.push(field, ValueKind::Object, start as u32, start as u32, !proper);
        Some(self.slots.last_index())
    }

    fn slots_close(&mut self, value: Option<usize>) {
        if let Some(value) = value {
            self.slots.set_end(value, self.at as u32);
        }
    }

    #[inline]
    fn push(&mut self, node: NodeId, kind: ValueKind, start: usize, end: usize) {
        if let Some((field, proper)) = self.schema.field(node) {
            self.slots.push(field, kind, start as u32, end as u32, !proper);
        }
    }

    fn string_value(&mut self, node: NodeId) -> Result<(), Malformed> {
        let first = self.at + 1;
        let (end, escaped) = string(self.text, first)?;
        self.at = end + 1;
        if !escaped {
            self.push(node, ValueKind::Text, first, end);
        } else if self.schema.field(node).is_some() {
            let start = self.slots.arena.len();
            unescape(&self.text[first..end], &mut self.slots.arena);
            let end = self.slots.arena.len();
            self.push(node, ValueKind::Unescaped, start, end);
        }
        Ok(())
    }

    fn array(&mut self, node: NodeId, depth: usize) -> Result<(), Malformed> {
        let start = self.at;
        if depth > MAX_DEPTH {
            self.at = skip(self.text, start)?;
            return Ok(());
        }
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.push(node, ValueKind::EmptyArray, start, self.at);
            return Ok(());
        }
        loop {
            self.space();
            self.value(node, depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error()),
            }
        }
    }
}

/// The end of the string whose content begins at `first` (the index of its quote), and whether it has escapes.
#[inline]
pub fn string(text: &[u8], first: usize) -> Result<(usize, bool), Malformed> {
    let mut at = first;
    let mut escaped = false;
    loop {
        let rest = text.get(at..).ok_or(Malformed { at: text.len() })?;
        let step = match rest.first_chunk::<16>() {
            Some(block) => match simd::stops(block) {
                0 => {
                    at += 16;
                    continue;
                }
                stops => stops.trailing_zeros() as usize,
            },
            None => rest.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or(Malformed { at: text.len() })?,
        };
        if rest[step] == b'"' {
            return Ok((at + step, escaped));
        }
        escaped = true;
        at += step + 2;
    }
}

/// The index behind the value at `at`. Iterative: depth costs nothing.
pub fn skip(text: &[u8], at: usize) -> Result<usize, Malformed> {
    match text.get(at) {
        Some(b'"') => string(text, at + 1).map(|(end, _)| end + 1),
        Some(b'{' | b'[') => skip_nested(text, at),
        Some(b't') if text[at..].starts_with(b"true") => Ok(at + 4),
        Some(b'f') if text[at..].starts_with(b"false") => Ok(at + 5),
        Some(b'n') if text[at..].starts_with(b"null") => Ok(at + 4),
        Some(b'-' | b'0'..=b'9') => {
            let length = text[at..].iter().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
            Ok(at + length)
        }
        _ => Err(Malformed { at }),
    }
}

fn skip_nested(text: &[u8], start: usize) -> Result<usize, Malformed> {
    simd::skip(text, start).ok_or(Malformed { at: text.len() })
}

/// Appends the content of a JSON string with its escapes resolved. Bad escapes stay as they are; lone surrogates become U+FFFD.
pub fn unescape(content: &[u8], out: &mut Vec<u8>) {
    simd::unescape(content, out);
}

/// What `Output::run` copies at once.
const RUN_BYTES: usize = 32;

#[inline(always)]
pub(super) fn unescape_with<B: Blocks>(content: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    // No escape grows: the content's length is enough.
    out.resize(begin + content.len() + RUN_BYTES, 0);
    let mut output = Output { content, from: 0, bytes: &mut out[begin..], to: 0 };
    let mut seen = 0;
    let mut at = 0;
    while at < content.len() {
        let mut rest = match content[at..].first_chunk::<64>() {
            Some(block) => B::backslashes(block),
            None => content[at..].iter().enumerate().fold(0, |mask, (i, byte)| mask | u64::from(*byte == b'\\') << i),
        };
        while rest != 0 {
            let backslash = at + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if backslash >= seen {
                seen = output.escape(backslash);
            }
        }
        at += 64;
    }
    output.run(content.len());
    let length = output.to;
    out.truncate(begin + length);
}

/// The content up to `from` stands unescaped in the bytes up to `to`.
struct Output<'a> {
    content: &'a [u8],
    from: usize,
    bytes: &'a mut [u8],
    to: usize,
}

impl Output<'_> {
    /// Copies up to `end`. Short runs as one block of a fixed size, whose end the next run overwrites.
    #[inline(always)]
    fn run(&mut self, end: usize) {
        let length = end - self.from;
        let from = &self.content[self.from..];
        let to = &mut self.bytes[self.to..];
        match (from.first_chunk::<RUN_BYTES>(), to.first_chunk_mut::<RUN_BYTES>()) {
            (Some(from), Some(to)) if length <= RUN_BYTES => *to = *from,
            _ => to[..length].copy_from_slice(&from[..length]),
        }
        self.from = end;
        self.to += length;
    }

    /// The escape at `backslash`; answers where it ends.
    #[inline(always)]
    fn escape(&mut self, backslash: usize) -> usize {
        self.run(backslash);
        if let Some(b'"' | b'\\' | b'/') = self.content.get(backslash + 1) {
            // The letter begins the next run.
            self.from = backslash + 1;
            return backslash + 2;
        }
        self.other(backslash)
    }

    #[inline(never)]
    fn other(&mut self, backslash: usize) -> usize {
        let (used, letter) = match self.content.get(backslash + 1) {
            Some(b'n') => (2, '\n'),
            Some(b't') => (2, '\t'),
            Some(b'r') => (2, '\r'),
            Some(b'b') => (2, '\u{8}'),
            Some(b'f') => (2, '\u{c}'),
            Some(b'u') => match unicode(&self.content[backslash..]) {
                Some(escape) => escape,
                None => return backslash + 2,
            },
            // It stays, and what follows it too.
            _ => return backslash + 1,
        };
        self.to += letter.encode_utf8(&mut self.bytes[self.to..]).len();
        self.from = backslash + used;
        self.from
    }
}

/// One `\uXXXX` or a surrogate pair: how many bytes it takes, and what it means.
fn unicode(escape: &[u8]) -> Option<(usize, char)> {
    let first = hex4(escape.get(2..6))?;
    let pair = (0xd800..0xdc00).contains(&first) && escape.get(6..8) == Some(br"\u");
    let second = if pair { hex4(escape.get(8..12)).filter(|s| (0xdc00..0xe000).contains(s)) } else { None };
    let (used, code) = match second {
        Some(second) => (12, 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)),
        None => (6, first),
    };
    Some((used, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)))
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |code, &d| Some(code << 4 | char::from(d).to_digit(16)?))
}

/// Appends the compact text of a value: white space between tokens dropped, keys in input order, strings unescaped between their
/// quotes, so that JSON inside a string reads as it was meant (SIGMA.md B8).
pub fn compact(value: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        if byte == b'"' {
            let end = string(value, at + 1).map_or(value.len(), |(end, _)| end);
            out.push(b'"');
            unescape(&value[at + 1..end], out);
            out.push(b'"');
            at = end;
        } else if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            out.push(byte);
        }
        at += 1;
    }
}

/// Calls `test` with the text of each scalar value until one passes. Text that is no JSON is one value. `buffer` is a place to
/// unescape in.
pub fn leaves(text: &[u8], buffer: &mut Vec<u8>, mut test: impl FnMut(&[u8]) -> bool) -> bool {
    if !matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return test(text);
    }
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'"' {
            let Ok((end, escaped)) = string(text, at + 1) else { return false };
            let is_key = text[end + 1..].trim_ascii_start().first() == Some(&b':');
            let content = &text[at + 1..end];
            at = end + 1;
            if is_key {
                continue;
            }
            buffer.clear();
            if escaped {
                unescape(content, buffer);
            }
            if test(if escaped { buffer } else { content }) {
                return true;
            }
        } else if byte.is_ascii_alphanumeric() || byte == b'-' {
            let length = text[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')).count();
            if test(&text[at..at + length]) {
                return true;
            }
            at += length;
        } else {
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests;
