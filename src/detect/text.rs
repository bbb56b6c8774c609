//! One pattern against one text.
//!
//! In: text as UTF-8 bytes. Out: yes or no. Invariant: case is folded letter by letter with Unicode's lower-case mapping and no
//! locale (so the Kelvin sign equals `k`, and a long s does not equal `s`); no pattern costs more than length × parts.

use std::sync::OnceLock;

use aho_corasick::packed;
use memchr::memmem::Finder;

use super::Scratchpad;
use crate::rule::ast::{Affix, Part, Pattern};

/// A Sigma string, made ready.
#[derive(Debug, Clone)]
pub(super) struct TextMatcher {
    cased: bool,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    /// `*`.
    Anything,
    Whole(Box<[u8]>),
    Starts(Box<[u8]>),
    Ends(Box<[u8]>),
    Contains(Box<Finder<'static>>),
    /// The runs between stars; the first is tied to the start and the last to the end.
    Glob(Box<[Run]>),
}

/// Literal bytes and `?`.
#[derive(Debug, Clone, Default)]
struct Run(Vec<Option<u8>>);

impl TextMatcher {
    pub fn new(pattern: &Pattern, cased: bool) -> Self {
        let fold_part = |text: &str| if cased { text.to_owned() } else { fold_str(text) };
        let shape = match pattern.0.as_slice() {
            [] => Shape::Whole(Box::default()),
            [Part::Star] => Shape::Anything,
            [Part::Literal(text)] => Shape::Whole(fold_part(text).into_bytes().into()),
            [Part::Literal(text), Part::Star] => Shape::Starts(fold_part(text).into_bytes().into()),
            [Part::Star, Part::Literal(text)] => Shape::Ends(fold_part(text).into_bytes().into()),
            [Part::Star, Part::Literal(text), Part::Star] => Shape::Contains(Box::new(Finder::new(fold_part(text).as_bytes()).into_owned())),
            parts => Shape::Glob(runs(parts, fold_part)),
        };
        Self { cased, shape }
    }

    /// A whole-value literal in folded form, if this is one: many of them make a set.
    pub fn folded_literal(&self) -> Option<&[u8]> {
        match &self.shape {
            Shape::Whole(text) if !self.cased => Some(text),
            _ => None,
        }
    }

    /// Does case not matter to it?
    pub fn folds(&self) -> bool {
        !self.cased
    }

    /// `buffer` is only a place to fold in.
    pub fn is_match(&self, text: &[u8], buffer: &mut Vec<u8>) -> bool {
        match &self.shape {
            Shape::Anything => return true,
            Shape::Whole(literal) if !self.cased && text.is_ascii() => return text.eq_ignore_ascii_case(literal),
            Shape::Starts(literal) if !self.cased && text.is_ascii() => {
                return text.get(..literal.len()).is_some_and(|t| t.eq_ignore_ascii_case(literal));
            }
            Shape::Ends(literal) if !self.cased && text.is_ascii() => {
                return text.len().checked_sub(literal.len()).is_some_and(|at| text[at..].eq_ignore_ascii_case(literal));
            }
            _ => {}
        }
        self.is_match_folded(if self.cased { text } else { fold(text, buffer) })
    }

    /// `text` is folded already, or case matters.
    pub fn is_match_folded(&self, text: &[u8]) -> bool {
        match &self.shape {
            Shape::Anything => true,
            Shape::Whole(literal) => text == &**literal,
            Shape::Starts(literal) => text.starts_with(literal),
            Shape::Ends(literal) => text.ends_with(literal),
            Shape::Contains(finder) => finder.find(text).is_some(),
            Shape::Glob(runs) => glob(runs, text),
        }
    }
}

/// From this many on, literals that may stand anywhere are looked for all at once.
const TOGETHER_FROM: usize = 4;

/// Patterns to which case doesn't matter, of which one must match.
#[derive(Debug)]
pub(super) struct PatternSet {
    patterns: Box<[TextMatcher]>,
    /// Made when first needed: there are hundreds of sets, and a short scan needs few of them.
    together: OnceLock<Together>,
}

#[derive(Debug)]
struct Together {
    literals: Option<packed::Searcher>,
    /// Indexes of the patterns that are not among them.
    others: Box<[u32]>,
}

impl PatternSet {
    pub fn new(patterns: Vec<TextMatcher>) -> Self {
        Self { patterns: patterns.into(), together: OnceLock::new() }
    }

    /// `text` is folded already.
    pub fn is_match_folded(&self, text: &[u8]) -> bool {
        if self.patterns.len() < TOGETHER_FROM {
            return self.patterns.iter().any(|pattern| pattern.is_match_folded(text));
        }
        let Together { literals, others } = self.together.get_or_init(|| Together::new(&self.patterns));
        literals.as_ref().is_some_and(|literals| literals.find(text).is_some())
            || others.iter().any(|index| self.patterns[*index as usize].is_match_folded(text))
    }
}

impl Together {
    fn new(patterns: &[TextMatcher]) -> Self {
        let anywhere = |pattern: &TextMatcher| match &pattern.shape {
            Shape::Contains(finder) if !finder.needle().is_empty() => Some(finder.needle().to_vec()),
            _ => None,
        };
        let literals: Vec<_> = patterns.iter().filter_map(anywhere).collect();
        // There is none for a great many, nor for a processor without vectors.
        let together = if literals.len() < TOGETHER_FROM { None } else { packed::Searcher::new(&literals) };
        let is_other = |pattern: &TextMatcher| together.is_none() || anywhere(pattern).is_none();
        let others = (0u32..).zip(patterns).filter(|(_, pattern)| is_other(pattern)).map(|(index, _)| index).collect();
        Self { literals: together, others }
    }
}

/// Two texts of the same event.
pub(super) fn compare(left: &[u8], right: &[u8], how: Affix, cased: bool, pad: &mut Scratchpad) -> bool {
    let (left, right) = if cased { (left, right) } else { (fold(left, &mut pad.fold), fold(right, &mut pad.other)) };
    match how {
        Affix::Whole => left == right,
        Affix::Starts => left.starts_with(right),
        Affix::Ends => left.ends_with(right),
        Affix::Contains => memchr::memmem::find(left, right).is_some(),
    }
}

/// The folded text, in `buffer`.
pub(super) fn fold<'b>(text: &[u8], buffer: &'b mut Vec<u8>) -> &'b [u8] {
    buffer.clear();
    if text.is_ascii() {
        buffer.extend_from_slice(text);
        buffer.make_ascii_lowercase();
        return buffer;
    }
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars().flat_map(char::to_lowercase) {
            buffer.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        buffer.extend_from_slice(chunk.invalid());
    }
    buffer
}

fn fold_str(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn runs(parts: &[Part], fold_part: impl Fn(&str) -> String) -> Box<[Run]> {
    let mut runs = vec![Run::default()];
    for part in parts {
        match part {
            Part::Star => runs.push(Run::default()),
            Part::Question => runs.last_mut().expect("never empty").0.push(None),
            Part::Literal(text) => runs.last_mut().expect("never empty").0.extend(fold_part(text).bytes().map(Some)),
        }
    }
    runs.into()
}

impl Run {
    /// Length of the match at the start of `text`; `?` takes one letter, however many bytes that has.
    fn match_at(&self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        for want in &self.0 {
            let byte = *text.get(at)?;
            match want {
                Some(want) if *want == byte => at += 1,
                Some(_) => return None,
                None => {
                    at += 1;
                    while text.get(at).is_some_and(|b| b & 0xc0 == 0x80) {
                        at += 1;
                    }
                }
            }
        }
        Some(at)
    }

    /// The leftmost match: its end.
    fn find(&self, text: &[u8]) -> Option<usize> {
        (0..=text.len()).filter(|at| text.get(*at).is_none_or(|b| b & 0xc0 != 0x80)).find_map(|at| Some(at + self.match_at(&text[at..])?))
    }

    /// Does it match a tail of `text` exactly to its end?
    fn match_end(&self, text: &[u8]) -> bool {
        (0..=text.len()).any(|at| self.match_at(&text[at..]).is_some_and(|l| at + l == text.len()) && text.get(at).is_none_or(|b| b & 0xc0 != 0x80))
    }
}

fn glob(runs: &[Run], text: &[u8]) -> bool {
    let [first, middle @ .., last] = runs else {
        return runs.first().is_some_and(|run| run.match_at(text) == Some(text.len()));
    };
    let Some(mut at) = first.match_at(text) else { return false };
    for run in middle {
        match run.find(&text[at..]) {
            Some(end) => at += end,
            None => return false,
        }
    }
    last.match_end(&text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[Part], text: &str, expected: bool) {
        let matcher = TextMatcher::new(&Pattern(parts.to_vec()), false);
        assert_eq!(matcher.is_match(text.as_bytes(), &mut Vec::new()), expected, "{parts:?} on {text:?}");
    }

    #[test]
    fn a_set_matches_where_one_of_its_patterns_does() {
        let l = |s: &str| Part::Literal(s.to_owned());
        let anywhere = ["Kali", "pacu", "é", "xyzzy", "a"].map(|s| vec![Part::Star, l(s), Part::Star]);
        let all: Vec<Vec<Part>> = anywhere.into_iter().chain([vec![l("q"), Part::Star], vec![Part::Star, l("b"), Part::Question]]).collect();
        for count in 1..=all.len() {
            let patterns: Vec<_> = all[..count].iter().map(|parts| TextMatcher::new(&Pattern(parts.clone()), false)).collect();
            let set = PatternSet::new(patterns.clone());
            for text in ["", "q", "kaLI", "xKALIx", "b.", "É", "xx xyzzy and a long tail of other things", "nothing here of it", "PACU/1.0"] {
                let folded = fold_str(text);
                let one = patterns.iter().any(|pattern| pattern.is_match(text.as_bytes(), &mut Vec::new()));
                assert_eq!(set.is_match_folded(folded.as_bytes()), one, "{count} {text}");
            }
        }
    }

    #[test]
    fn patterns() {
        let l = |s: &str| Part::Literal(s.to_owned());
        check(&[l("StopLogging")], "stoplogging", true);
        check(&[l("StopLogging")], "ſtopLogging", false);
        check(&[l("Kelvin")], "\u{212a}elvin", true);
        check(&[l("İ")], "i\u{307}", true);
        check(&[Part::Star], "", true);
        check(&[l("a"), Part::Star, l("b")], "a\nxxb", true);
        check(&[l("a"), Part::Star, l("b")], "ab", true);
        check(&[l("a"), Part::Star, l("ab")], "ab", false);
        check(&[l("a"), Part::Question, l("c")], "aéc", true);
        check(&[l("a"), Part::Question, l("c")], "ac", false);
        check(&[Part::Star, l("x"), Part::Star, l("yz")], "1x2y3yz", true);
        check(&[Part::Star, l("x"), Part::Star, l("yz")], "1x2y3yz ", false);
        check(&[Part::Star, l("é"), Part::Star], "CAFÉS", true);
        check(&[], "", true);
        check(&[], "a", false);
    }
}
