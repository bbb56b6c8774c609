//! Sigma strings: escapes and wildcards.
//!
//! In: the text of a YAML scalar. Out: `Pattern`. Invariant: no two literals and no two stars stand side by side.
//!
//! Format: Sigma 2.1.0, "Escaping". `*` and `?` are wildcards; `\*` and `\?` are the characters; `\\` is one backslash; a
//! backslash before anything else is itself.

use crate::rule::ast::{Affix, Part, Pattern};

impl Pattern {
    pub fn parse(text: &str) -> Self {
        let mut pattern = Self::default();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '*' => pattern.star(),
                '?' => pattern.0.push(Part::Question),
                '\\' => {
                    let escaped = characters.next_if(|next| matches!(next, '*' | '?' | '\\'));
                    pattern.literal(escaped.unwrap_or('\\'));
                }
                other => pattern.literal(other),
            }
        }
        pattern
    }

    /// Every character itself.
    pub fn plain(text: &str) -> Self {
        if text.is_empty() { Self::default() } else { Self(vec![Part::Literal(text.to_owned())]) }
    }

    /// The text, if there is no wildcard in it.
    pub fn as_plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Adds the stars of `startswith`, `endswith` and `contains`.
    pub fn with(mut self, affix: Affix) -> Self {
        if matches!(affix, Affix::Ends | Affix::Contains) && self.0.first() != Some(&Part::Star) {
            self.0.insert(0, Part::Star);
        }
        if matches!(affix, Affix::Starts | Affix::Contains) {
            self.star();
        }
        self
    }

    /// Matches any text whatever.
    pub fn is_anything(&self) -> bool {
        self.0 == [Part::Star]
    }

    fn star(&mut self) {
        if self.0.last() != Some(&Part::Star) {
            self.0.push(Part::Star);
        }
    }

    fn literal(&mut self, character: char) {
        match self.0.last_mut() {
            Some(Part::Literal(text)) => text.push(character),
            _ => self.0.push(Part::Literal(character.into())),
        }
    }
}

/// As it would be written in a rule.
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write;
        for part in &self.0 {
            match part {
                Part::Star => f.write_char('*')?,
                Part::Question => f.write_char('?')?,
                Part::Literal(text) => {
                    let mut characters = text.chars().peekable();
                    while let Some(character) = characters.next() {
                        let ambiguous = character == '\\' && characters.peek().is_none_or(|next| matches!(next, '*' | '?' | '\\'));
                        if matches!(character, '*' | '?') || ambiguous {
                            f.write_char('\\')?;
                        }
                        f.write_char(character)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        Pattern::parse(text).0
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.into())
    }

    #[test]
    fn escapes_and_wildcards() {
        use Part::{Question, Star};
        for (text, expected) in [
            ("", vec![]),
            ("abc", vec![literal("abc")]),
            ("a*b", vec![literal("a"), Star, literal("b")]),
            ("a?b", vec![literal("a"), Question, literal("b")]),
            ("**", vec![Star]),
            ("??", vec![Question, Question]),
            (r"a\*b", vec![literal("a*b")]),
            (r"a\?b", vec![literal("a?b")]),
            (r"\\*", vec![literal(r"\"), Star]),
            (r"\\\*", vec![literal(r"\*")]),
            (r"\\\\*", vec![literal(r"\\"), Star]),
            (r"C:\Windows\cmd.exe", vec![literal(r"C:\Windows\cmd.exe")]),
            (r"\\server", vec![literal(r"\server")]),
            (r"\\\\server", vec![literal(r"\\server")]),
            (r"end\", vec![literal(r"end\")]),
            ("Jersey/${project.version}<>", vec![literal("Jersey/${project.version}<>")]),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn affixes_add_stars_once() {
        for (text, affix, expected) in [
            ("a", Affix::Contains, "*a*"),
            ("*a*", Affix::Contains, "*a*"),
            ("a", Affix::Starts, "a*"),
            ("a", Affix::Ends, "*a"),
            ("*", Affix::Contains, "*"),
            ("", Affix::Contains, "*"),
            (r"a\*", Affix::Starts, r"a\**"),
            (r"a\", Affix::Starts, r"a\\*"),
        ] {
            assert_eq!(Pattern::parse(text).with(affix).to_string(), expected, "{text} {affix:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in r"[a*?\\]{0,12}") {
            let pattern = Pattern::parse(&text);
            prop_assert_eq!(Pattern::parse(&pattern.to_string()), pattern);
        }
    }
}
