//! The members of one JSON object, a level deep: enough to tell what it is.
//!
//! In: the text of an object. Out: keys and raw values in order. Invariant: stops at the first thing that isn't JSON.

use crate::event::json::{self, Malformed};

/// Steps through an object's members.
pub struct Members<'a> {
    text: &'a [u8],
    pub at: usize,
    done: bool,
}

/// A key, unescaped only if it needs to be told apart, and where its value begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The key's content, escapes in place.
    pub key: &'a [u8],
    /// Index of the value's first byte.
    pub value_at: usize,
}

impl<'a> Members<'a> {
    /// `at`: the index of the opening bracket.
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at: at + 1, done: false }
    }

    /// The next key. The caller must then set `at` behind the value (`skip_value`).
    pub fn next_key(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        if self.done {
            return Ok(None);
        }
        self.at = space(self.text, self.at);
        match self.text.get(self.at) {
            Some(b'}') => {
                self.at += 1;
                self.done = true;
                return Ok(None);
            }
            Some(b',') => self.at = space(self.text, self.at + 1),
            _ => {}
        }
        if self.text.get(self.at) != Some(&b'"') {
            return Err(Malformed { at: self.at });
        }
        let first = self.at + 1;
        let (end, _) = json::string(self.text, first)?;
        let colon = space(self.text, end + 1);
        if self.text.get(colon) != Some(&b':') {
            return Err(Malformed { at: colon });
        }
        let value_at = space(self.text, colon + 1);
        Ok(Some(Member { key: &self.text[first..end], value_at }))
    }

    /// Steps over the member's value and gives its raw text.
    pub fn skip_value(&mut self, member: &Member<'_>) -> Result<&'a [u8], Malformed> {
        self.at = json::skip(self.text, member.value_at)?;
        Ok(&self.text[member.value_at..self.at])
    }
}

pub fn space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// A string value's content, escapes in place.
pub fn string_content(raw: &[u8]) -> Option<&[u8]> {
    raw.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// A string value's content if it is plain text without escapes, else nothing.
pub fn plain_text(raw: Option<&[u8]>) -> &str {
    raw.and_then(string_content).filter(|t| !t.contains(&b'\\')).and_then(|t| std::str::from_utf8(t).ok()).unwrap_or("")
}

/// The raw value of the first member called `name`.
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut members = Members::new(object, space(object, 0));
    while let Ok(Some(member)) = members.next_key() {
        let value = members.skip_value(&member).ok()?;
        if member.key == name.as_bytes() {
            return Some(value);
        }
    }
    None
}

/// Steps through an array's raw elements; ends at the first thing that isn't JSON.
pub fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = space(array, 0) + 1;
    std::iter::from_fn(move || {
        at = space(array, at);
        if array.get(at) == Some(&b',') {
            at = space(array, at + 1);
        }
        if matches!(array.get(at), None | Some(b']')) {
            return None;
        }
        let end = json::skip(array, at).ok()?;
        let element = &array[at..end];
        at = end;
        Some(element)
    })
}
