//! A regular expression, built when it is first needed.
//!
//! In: the source, checked by its parser. Out: yes or no for a text. Invariant: an expression that could outgrow its bound is
//! built at once, so that it is refused when rules are loaded and never later.

use std::collections::{HashMap, hash_map::Entry};
use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

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
        let needs = tree.ok().and_then(|tree| inner_literal(&tree).map(|literal| Finder::new(literal).into_owned()));
        Ok(Self { source: source.into(), flags, regex, needs })
    }

    pub fn is_match(&self, text: &[u8]) -> bool {
        self.needs.as_ref().is_none_or(|needs| needs.find(text).is_some()) && self.regex().is_match(text)
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
        assert!(expression.is_match(b"Role/break-glass") && !expression.is_match(b"group/x"));
        assert!(is_built(r"\w{4}x"), "of unknown size: hundreds of ranges");
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
