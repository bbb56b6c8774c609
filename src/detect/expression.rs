//! A regular expression, built when it is first needed.
//!
//! In: the source, checked by its parser. Out: yes or no for a text. Invariant: an expression that could outgrow its bound is
//! built at once, so that it is refused when rules are loaded and never later.

use std::collections::{HashMap, hash_map::Entry};
use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::text;

/// A regular expression's compiled size in bytes, at most.
const SIZE_LIMIT: usize = 1 << 20;
/// Up to this weight an expression is surely below the limit: a state of its automaton takes some fifty bytes.
const SURELY_SMALL: usize = 4_096;
/// States that one range of characters may need, as ranges are split by the lengths of their UTF-8 forms.
const STATES_A_RANGE: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flags {
    pub ignore_case: bool,
    pub multi_line: bool,
    pub dot_all: bool,
}

/// A regular expression and letters that stand in every text that it matches.
#[derive(Debug)]
pub(super) struct Expression {
    source: Box<str>,
    flags: Flags,
    /// Building one costs a hundred times what parsing does, and most rules never come to need theirs.
    regex: OnceLock<Regex>,
    needs: Option<Finder<'static>>,
    /// Of these, small letters all, one stands in every ASCII text that it matches, case aside. None: nothing is known.
    words: Box<[Finder<'static>]>,
}

/// Expressions of a rule set: many rules ask the same of different fields.
#[derive(Debug, Default)]
pub(super) struct Expressions(HashMap<(Box<str>, Flags), Arc<Expression>>);

impl Expressions {
    /// # Errors
    /// As `Expression::new`.
    pub fn get(&mut self, source: &str, flags: Flags) -> Result<Arc<Expression>, regex::Error> {
        Ok(match self.0.entry((source.into(), flags)) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => place.insert(Arc::new(Expression::new(source, flags)?)).clone(),
        })
    }
}

impl Expression {
    /// # Errors
    /// Too large, or not an expression.
    pub fn new(source: &str, flags: Flags) -> Result<Self, regex::Error> {
        let tree = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .case_insensitive(flags.ignore_case)
            .multi_line(flags.multi_line)
            .dot_matches_new_line(flags.dot_all)
            .build()
            .parse(source);
        let regex = match &tree {
            Ok(tree) if weight(tree) <= SURELY_SMALL => OnceLock::new(),
            _ => OnceLock::from(build(source, flags)?),
        };
        let finder = |literal: &[u8]| Finder::new(literal).into_owned();
        let needs = tree.as_ref().ok().and_then(|tree| inner_literal(tree).map(finder));
        let words = tree.ok().filter(|_| needs.is_none()).and_then(|tree| words(&tree)).unwrap_or_default();
        let words = words.iter().map(|word| finder(word)).collect();
        Ok(Self { source: source.into(), flags, regex, needs, words })
    }

    /// `buffer` is only a place to fold in.
    pub fn is_match(&self, text: &[u8], buffer: &mut Vec<u8>) -> bool {
        self.needs.as_ref().is_none_or(|needs| needs.find(text).is_some()) && self.has_a_word(text, buffer) && self.regex().is_match(text)
    }

    fn has_a_word(&self, text: &[u8], buffer: &mut Vec<u8>) -> bool {
        if self.words.is_empty() || !text.is_ascii() {
            return true;
        }
        let folded = text::fold(text, buffer);
        self.words.iter().any(|word| word.find(folded).is_some())
    }

    fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| build(&self.source, self.flags).expect("it was parsed, and is far below the size limit"))
    }
}

fn build(source: &str, flags: Flags) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.multi_line)
        .dot_matches_new_line(flags.dot_all)
        .size_limit(SIZE_LIMIT)
        .build()
}

/// No fewer than the states of its automaton.
fn weight(tree: &Hir) -> usize {
    match tree.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().saturating_mul(STATES_A_RANGE),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() + 1,
        HirKind::Capture(capture) => weight(&capture.sub).saturating_add(2),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(repetition.min).saturating_add(1) as usize;
            (weight(&repetition.sub) + 2).saturating_mul(times)
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().fold(2, |sum, part| sum.saturating_add(weight(part) + 1)),
    }
}

/// The longest literal that each match contains.
fn inner_literal(tree: &Hir) -> Option<&[u8]> {
    match tree.kind() {
        HirKind::Literal(literal) => Some(&literal.0),
        HirKind::Concat(parts) => parts.iter().filter_map(inner_literal).max_by_key(|literal| literal.len()),
        HirKind::Capture(capture) => inner_literal(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => inner_literal(&repetition.sub),
        _ => None,
    }
}

/// Shorter words stand in too many texts, and more of them take longer to look for than they spare.
const WORD_LETTERS: usize = 3;
const MAX_WORDS: usize = 4;

/// Words of small letters, of which each match in ASCII text contains one, case aside.
fn words(tree: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut found = match tree.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => vec![letters(tree)?],
        HirKind::Concat(parts) => {
            // Neighbours of one letter each make a word together.
            let runs = parts.split(|part| letters(part).is_none()).map(|run| vec![run.iter().filter_map(letters).collect::<Vec<_>>().concat()]);
            let shortest = |words: &Vec<Vec<u8>>| words.iter().map(Vec::len).min();
            runs.chain(parts.iter().filter_map(words)).max_by_key(shortest)?
        }
        HirKind::Alternation(parts) => parts.iter().map(words).collect::<Option<Vec<_>>>()?.concat(),
        HirKind::Capture(capture) => words(&capture.sub)?,
        HirKind::Repetition(repetition) if repetition.min > 0 => words(&repetition.sub)?,
        _ => return None,
    };
    found.sort();
    found.dedup();
    let usable = found.len() <= MAX_WORDS && found.iter().all(|word| word.len() >= WORD_LETTERS);
    usable.then_some(found)
}

/// The one text, case aside, that a literal or a class of one letter matches where all is ASCII.
fn letters(tree: &Hir) -> Option<Vec<u8>> {
    let one = |first: char, last: char| (first == last).then(|| first.to_ascii_lowercase());
    match tree.kind() {
        HirKind::Literal(literal) if literal.0.is_ascii() => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(Class::Unicode(class)) => {
            let mut all = class.ranges().iter().filter(|range| range.start().is_ascii()).map(|range| one(range.start(), range.end()));
            let first = all.next()??;
            all.all(|letter| letter == Some(first)).then(|| vec![first as u8])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: Flags = Flags { ignore_case: true, multi_line: false, dot_all: false };

    fn is_built(source: &str) -> bool {
        Expression::new(source, FLAGS).unwrap().regex.get().is_some()
    }

    #[test]
    fn small_ones_wait_until_they_are_needed() {
        let expression = Expression::new("^(?:role|user)/[a-z0-9-]{1,20}$", FLAGS).unwrap();
        assert!(expression.regex.get().is_none());
        let room = &mut Vec::new();
        assert!(expression.is_match(b"Role/break-glass", room) && !expression.is_match(b"group/x", room));
        assert!(is_built(r"\w{4}x"), "of unknown size: hundreds of ranges");
    }

    #[test]
    fn words_are_in_all_that_is_matched() {
        let words = |source: &str, flags| {
            let tree = regex_syntax::ParserBuilder::new().utf8(false).case_insensitive(flags).build().parse(source).unwrap();
            super::words(&tree).map(|words| words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(words(r"\b(kali|parrot)\b|(kali|parrot)[0-9]", true).unwrap(), ["kali", "parrot"]);
        assert_eq!(words(r"(?:AKIA|ASIA)[A-Z]{16}", false).unwrap(), ["akia", "asia"]);
        assert_eq!(words("a[b-c]d+", true), None);
        assert_eq!(words("(?:abc)?x", true), None);
        assert_eq!(words("abc|", true), None);
        for (source, text) in
            [("(?i)\\bkali\\b", "Linux/6 KALI "), ("(?i)straße|kelvin", "x\u{212a}elvin"), ("(?i)maſt", "a MAST"), ("(?i)abc|d.f", "DxF")]
        {
            let expression = Expression::new(source, FLAGS).unwrap();
            assert!(expression.is_match(text.as_bytes(), &mut Vec::new()), "{source} {text}");
            assert!(!expression.is_match(b"nothing of it", &mut Vec::new()), "{source}");
        }
    }

    #[test]
    fn an_expression_above_the_bound_is_refused_at_once() {
        assert!(Expression::new(r"(?:\w{50}){200}", FLAGS).is_err());
        assert!(Expression::new("(?:a{1000}){1000}", FLAGS).is_err());
    }

    /// What is called surely small has room to spare.
    #[test]
    fn the_weight_bounds_the_size() {
        for source in ["(?:[^\\x00-\\x{10FFFE}]é){40}", "(?:a|bc|[d-f]){0,450}", "[α-ωа-я]{1,20}(?:x{3}y){100}", "(?:\\PL){1,3}"] {
            let tree = regex_syntax::parse(source).unwrap();
            let size = |limit| RegexBuilder::new(source).size_limit(limit).build().is_ok();
            assert!(weight(&tree) > SURELY_SMALL || size(SIZE_LIMIT / 2), "{source}: {}", weight(&tree));
        }
    }
}
