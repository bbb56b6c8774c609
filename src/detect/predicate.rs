//! One item of a selection: a field (or the whole text) against its tests.
//!
//! In: the values of one event. Out: yes or no; three-valued where only the routing values are known. Invariant: no allocation.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::expression::Expression;
use super::text::{self, PatternSet, TextMatcher};
use super::{Nested, Scratchpad};
use crate::event::{FieldId, Schema, Slots, Value, ValueKind, json, time};
use crate::rule::ast::{Affix, Comparison, TimePart};

/// The event as predicates see it.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub text: &'a [u8],
    pub slots: &'a Slots,
}

#[derive(Debug)]
pub(super) struct Predicate {
    /// `None`: keywords.
    pub field: Option<FieldId>,
    pub matchers: Matchers,
    pub all: bool,
    pub negated: bool,
}

#[derive(Debug)]
pub(super) enum Matchers {
    /// Whole values, folded; worth a set from a handful on.
    Words(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
    /// Patterns to which case doesn't matter: the text is folded once for all of them.
    Patterns(PatternSet),
    List(Vec<Matcher>),
}

#[derive(Debug)]
pub(super) enum Matcher {
    Text(TextMatcher),
    Number(Box<str>),
    Bool(bool),
    Null,
    Exists(bool),
    Regex(Arc<Expression>),
    Compare { op: Comparison, number: f64 },
    Cidr(ipnet::IpNet),
    FieldRef { field: FieldId, how: Affix, cased: bool },
    Time { part: TimePart, op: Comparison, value: i64 },
    Element { every: bool, nested: Box<Nested> },
    Never,
}

impl Predicate {
    pub fn holds(&self, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        let found = match (&self.matchers, self.field) {
            (Matchers::Words(words), Some(field)) => subject
                .slots
                .get(field)
                .any(|v| subject.slots.text(subject.text, v).is_some_and(|t| v.kind != ValueKind::Object && contains(words, t, pad))),
            (Matchers::Patterns(patterns), Some(field)) => subject.slots.get(field).any(|v| Self::patterns_on_value(patterns, v, subject, pad)),
            (Matchers::List(list), Some(field)) if self.all => list.iter().all(|m| m.holds(field, subject, pad)),
            (Matchers::List(list), Some(field)) => list.iter().any(|m| m.holds(field, subject, pad)),
            (_, None) => self.keywords(subject, pad),
        };
        found != self.negated
    }

    fn patterns_on_value(patterns: &PatternSet, value: &Value, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        let Some(text) = subject.slots.text(subject.text, value) else { return false };
        if value.kind != ValueKind::Object {
            return any(patterns, text, pad);
        }
        let mut compact = std::mem::take(&mut pad.compact);
        compact.clear();
        json::compact(text, &mut compact);
        let held = any(patterns, &compact, pad);
        pad.compact = compact;
        held
    }

    fn keywords(&self, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        let list = match &self.matchers {
            Matchers::List(list) => list,
            Matchers::Patterns(patterns) => {
                return json::leaves(subject.text, &mut pad.leaf, |text| patterns.is_match_folded(text::fold(text, &mut pad.fold)));
            }
            Matchers::Words(words) => {
                return json::leaves(subject.text, &mut pad.leaf, |text| words.contains(text::fold(text, &mut pad.fold)));
            }
        };
        let mut one = |m: &Matcher| json::leaves(subject.text, &mut pad.leaf, |text| m.on_text(text, &mut pad.fold));
        if self.all { list.iter().all(&mut one) } else { list.iter().any(&mut one) }
    }

    /// The last step of its field's name, if an event for which it holds must have a value there: then these letters stand in the
    /// event's text as they are, unless they are spelled as `\u…`.
    pub fn key<'s>(&self, schema: &'s Schema) -> Option<&'s str> {
        let name = schema.name(self.field?);
        let key = name.rsplit('.').next()?;
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        (plain && self.fails_without_value() && !name.starts_with("derived.")).then_some(key)
    }

    /// What a look at one value costs; 1 is a comparison of texts.
    pub fn weight(&self) -> u32 {
        const SEARCH: u32 = 8;
        match &self.matchers {
            Matchers::Words(_) => 2,
            Matchers::Patterns(_) => SEARCH,
            Matchers::List(list) => list.iter().map(|m| if matches!(m, Matcher::Regex(_)) { SEARCH } else { 1 }).sum(),
        }
    }

    pub fn fails_without_value(&self) -> bool {
        let valued = |m: &Matcher| !matches!(m, Matcher::Null | Matcher::Exists(false));
        let needed = match &self.matchers {
            Matchers::Words(_) | Matchers::Patterns(_) => true,
            Matchers::List(list) if self.all => list.iter().any(valued),
            Matchers::List(list) => list.iter().all(valued),
        };
        needed && !self.negated
    }

    /// With only the routing value of its field at hand: `None` if that can't tell.
    pub fn on_known(&self, text: Option<&[u8]>, pad: &mut Scratchpad) -> Option<bool> {
        let found = match (&self.matchers, text) {
            (Matchers::Words(words), Some(text)) => contains(words, text, pad),
            (Matchers::Patterns(patterns), Some(text)) => any(patterns, text, pad),
            (Matchers::Words(_) | Matchers::Patterns(_), None) => false,
            (Matchers::List(list), text) => {
                let mut sure = Some(self.all);
                for matcher in list {
                    match matcher.on_known(text, pad) {
                        Some(held) if held != self.all => {
                            sure = Some(held);
                            break;
                        }
                        Some(_) => {}
                        None => sure = None,
                    }
                }
                sure?
            }
        };
        Some(found != self.negated)
    }
}

fn any(patterns: &PatternSet, text: &[u8], pad: &mut Scratchpad) -> bool {
    patterns.is_match_folded(text::fold(text, &mut pad.fold))
}

fn contains(words: &HashSet<Box<[u8]>, foldhash::fast::RandomState>, text: &[u8], pad: &mut Scratchpad) -> bool {
    words.contains(text::fold(text, &mut pad.fold))
}

impl Matcher {
    /// Does some value of the field pass?
    fn holds(&self, field: FieldId, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        let Subject { text: body, slots } = subject;
        match self {
            Matcher::Null => !slots.is_present(field) || slots.get(field).any(|v| v.kind == ValueKind::Null),
            Matcher::Exists(wanted) => slots.is_present(field) == *wanted,
            Matcher::FieldRef { field: other, how, cased } => slots
                .get(field)
                .filter_map(|v| slots.text(body, v))
                .any(|left| slots.get(*other).filter_map(|v| slots.text(body, v)).any(|right| text::compare(left, right, *how, *cased, pad))),
            Matcher::Element { every, nested } => {
                let mut objects = slots.get(field).filter(|v| v.kind == ValueKind::Object).peekable();
                let mut one = |v: &Value| slots.text(body, v).is_some_and(|object| nested.holds(object, pad));
                if *every { objects.peek().is_some() && objects.all(&mut one) } else { objects.any(&mut one) }
            }
            _ => slots.get(field).any(|value| self.on_value(value, subject, pad)),
        }
    }

    fn on_value(&self, value: &Value, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        let Some(text) = subject.slots.text(subject.text, value) else { return false };
        if value.kind != ValueKind::Object {
            return self.on_text(text, &mut pad.fold);
        }
        if !matches!(self, Matcher::Text(_) | Matcher::Regex(_)) {
            return false;
        }
        let mut compact = std::mem::take(&mut pad.compact);
        compact.clear();
        json::compact(text, &mut compact);
        let held = self.on_text(&compact, &mut pad.fold);
        pad.compact = compact;
        held
    }

    /// The tests that need nothing but one scalar's text.
    fn on_text(&self, text: &[u8], fold: &mut Vec<u8>) -> bool {
        match self {
            Matcher::Text(matcher) => matcher.is_match(text, fold),
            Matcher::Number(lexeme) => number_equals(lexeme, text),
            Matcher::Bool(value) => text.eq_ignore_ascii_case(if *value { b"true" } else { b"false" }),
            Matcher::Regex(expression) => expression.is_match(text, fold),
            Matcher::Compare { op, number } => number_of(text).is_some_and(|n| compare(n, *op, *number)),
            Matcher::Cidr(net) => address(text).is_some_and(|a| net.contains(&a)),
            Matcher::Time { part, op, value } => time_part(text, *part).is_some_and(|is| compare(is as f64, *op, *value as f64)),
            Matcher::Null | Matcher::Exists(_) | Matcher::FieldRef { .. } | Matcher::Element { .. } | Matcher::Never => false,
        }
    }

    fn on_known(&self, text: Option<&[u8]>, pad: &mut Scratchpad) -> Option<bool> {
        match (self, text) {
            (Matcher::Null, text) => Some(text.is_none()),
            (Matcher::Exists(wanted), text) => Some(text.is_some() == *wanted),
            (Matcher::FieldRef { .. }, Some(_)) => None,
            (_, None) => Some(false),
            (matcher, Some(text)) => Some(matcher.on_text(text, &mut pad.fold)),
        }
    }
}

/// Integers are compared digit by digit, whatever their size; anything else as numbers.
fn number_equals(lexeme: &str, text: &[u8]) -> bool {
    if lexeme.as_bytes() == text {
        return true;
    }
    let whole = |digits: &[u8]| digits.strip_prefix(b"-").unwrap_or(digits).iter().all(u8::is_ascii_digit);
    if whole(lexeme.as_bytes()) && whole(text) {
        return false;
    }
    matches!((lexeme.parse::<f64>(), number_of(text)), (Ok(a), Some(b)) if a == b)
}

fn number_of(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

fn compare(left: f64, op: Comparison, right: f64) -> bool {
    match op {
        Comparison::Lt => left < right,
        Comparison::Lte => left <= right,
        Comparison::Gt => left > right,
        Comparison::Gte => left >= right,
        Comparison::Eq => left == right,
        Comparison::Neq => left != right,
    }
}

/// Host names and `AWS Internal` are no addresses; IPv4 written as IPv6 is IPv4.
fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok().map(|a| a.to_canonical())
}

fn time_part(text: &[u8], part: TimePart) -> Option<i64> {
    let civil = time::civil(time::parse(text)?)?;
    Some(match part {
        TimePart::Minute => civil.minute().into(),
        TimePart::Hour => civil.hour().into(),
        TimePart::Day => civil.day().into(),
        TimePart::Week => civil.date().iso_week_date().week().into(),
        TimePart::Month => civil.month().into(),
        TimePart::Year => civil.year().into(),
    })
}
