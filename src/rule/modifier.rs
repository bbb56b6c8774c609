//! A detection key `field|modifier|…` and what its modifiers make of the values.
//!
//! In: a key and its value nodes. Out: tests. Invariant: a chain that could mean two things, or nothing, is an error.
//!
//! Source: Sigma 2.1.0, modifier appendix; names also as pySigma spells them.

use crate::rule::{
    ast::{Affix, Comparison, Span, Spanned, TimePart},
    diagnostic::Report,
    yaml::Node,
};

mod encode;
mod value;

pub use value::{IMPLICIT_LISTS, Lists, Values, placeholders};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    All,
    Neq,
    Cased,
    Expand,
    Affix(Affix),
    Regex,
    Flag(Flag),
    Compare(Comparison),
    Time(TimePart),
    Cidr,
    FieldRef,
    Exists,
    Transform(Transform),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    IgnoreCase,
    MultiLine,
    DotAll,
}

/// Changes of the string itself, done in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rule) enum Transform {
    WinDash,
    Base64,
    Base64Offset,
    Utf16Le,
    Utf16Be,
    Utf16,
}

const MODIFIERS: [(&str, Modifier); 34] = [
    ("all", Modifier::All),
    ("startswith", Modifier::Affix(Affix::Starts)),
    ("endswith", Modifier::Affix(Affix::Ends)),
    ("contains", Modifier::Affix(Affix::Contains)),
    ("exists", Modifier::Exists),
    ("cased", Modifier::Cased),
    ("neq", Modifier::Neq),
    ("windash", Modifier::Transform(Transform::WinDash)),
    ("re", Modifier::Regex),
    ("i", Modifier::Flag(Flag::IgnoreCase)),
    ("m", Modifier::Flag(Flag::MultiLine)),
    ("s", Modifier::Flag(Flag::DotAll)),
    ("ignorecase", Modifier::Flag(Flag::IgnoreCase)),
    ("multiline", Modifier::Flag(Flag::MultiLine)),
    ("dotall", Modifier::Flag(Flag::DotAll)),
    ("base64", Modifier::Transform(Transform::Base64)),
    ("base64offset", Modifier::Transform(Transform::Base64Offset)),
    ("utf16le", Modifier::Transform(Transform::Utf16Le)),
    ("utf16be", Modifier::Transform(Transform::Utf16Be)),
    ("utf16", Modifier::Transform(Transform::Utf16)),
    ("wide", Modifier::Transform(Transform::Utf16Le)),
    ("lt", Modifier::Compare(Comparison::Lt)),
    ("lte", Modifier::Compare(Comparison::Lte)),
    ("gt", Modifier::Compare(Comparison::Gt)),
    ("gte", Modifier::Compare(Comparison::Gte)),
    ("minute", Modifier::Time(TimePart::Minute)),
    ("hour", Modifier::Time(TimePart::Hour)),
    ("day", Modifier::Time(TimePart::Day)),
    ("week", Modifier::Time(TimePart::Week)),
    ("month", Modifier::Time(TimePart::Month)),
    ("year", Modifier::Time(TimePart::Year)),
    ("cidr", Modifier::Cidr),
    ("expand", Modifier::Expand),
    ("fieldref", Modifier::FieldRef),
];

/// All names, for schemas.
pub(in crate::rule) fn names() -> impl Iterator<Item = &'static str> {
    MODIFIERS.iter().map(|(name, _)| *name)
}

/// Names that other tools taught, with what Sigma says instead.
const FOREIGN: [(&str, &str); 6] = [
    ("regex", "Sigma's name for it is `re`"),
    ("eq", "equality needs no modifier"),
    ("not", "write `neq`, or a filter with `not` in the condition"),
    ("ne", "Sigma's name for it is `neq`"),
    ("in", "a list of values needs no modifier"),
    ("any", "a list means any of its values; for one object of an array write `field[any]`"),
];

/// What the values are compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rule) enum How {
    Text,
    Regex { ignore_case: bool, multi_line: bool, dot_all: bool },
    Compare(Comparison),
    Time(TimePart, Comparison),
    Cidr,
    FieldRef,
    Exists,
}

/// A key of a selection, understood.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::rule) struct Key {
    /// `None`: keywords.
    pub field: Option<Spanned<String>>,
    /// `field[any]` is `Some(false)`, `field[all]` is `Some(true)`.
    pub every: Option<bool>,
    pub all: bool,
    pub negated: bool,
    pub cased: bool,
    pub expand: bool,
    pub affix: Option<Affix>,
    pub transforms: Vec<Transform>,
    pub how: How,
    pub span: Span,
}

impl Key {
    /// Reads `field|modifier|…`. Errors have been reported when this is `None`.
    pub fn parse(node: &Node, report: &mut Report) -> Option<Self> {
        let text = node.text()?;
        let (name, modifiers) = text.split_once('|').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let (name, every) = match name.strip_suffix("[any]").map(|name| (name, false)).or(name.strip_suffix("[all]").map(|name| (name, true))) {
            Some((name, every)) => (name, Some(every)),
            None => (name, None),
        };
        let field_span = node.piece(0..name.len());
        if name.trim() != name {
            report.error(field_span, "a field's name can't begin or end with a space");
            return None;
        }
        let mut key = Self {
            field: (!name.is_empty()).then(|| Spanned { value: name.to_owned(), span: field_span }),
            every,
            all: false,
            negated: false,
            cased: false,
            expand: false,
            affix: None,
            transforms: Vec::new(),
            how: How::Text,
            span: node.span,
        };
        let mut chain = Chain { key: &mut key, report, seen: Vec::new(), failed: false };
        let mut at = text.len() - modifiers.map_or(0, str::len);
        for name in modifiers.into_iter().flat_map(|rest| rest.split('|')) {
            chain.add(name, node.piece(at..at + name.len()));
            at += name.len() + 1;
        }
        let failed = chain.failed;
        (!failed && key.check(report)).then_some(key)
    }

    /// What only the whole chain shows.
    fn check(&self, report: &mut Report) -> bool {
        let encoded = self.transforms.iter().any(|transform| matches!(transform, Transform::Base64 | Transform::Base64Offset));
        let wide = self.transforms.iter().any(|transform| !matches!(transform, Transform::WinDash | Transform::Base64 | Transform::Base64Offset));
        let plain_text = self.how == How::Text;
        let refused: [(bool, &str, &str); 7] = [
            (wide && !encoded, "UTF-16 text can't stand in an event as it is", "add `base64` or `base64offset|contains` behind the encoding"),
            (
                !plain_text && !self.transforms.is_empty(),
                "encodings and `windash` change text; this key compares something else",
                "remove one of them",
            ),
            (
                self.affix.is_some() && !matches!(self.how, How::Text | How::FieldRef | How::Regex { .. }),
                "`contains`, `startswith` and `endswith` are for text and field references",
                "remove it",
            ),
            (
                matches!(self.how, How::Regex { .. }) && matches!(self.affix, Some(Affix::Starts | Affix::Ends)),
                "a regular expression is not anchored by `startswith` or `endswith`",
                "write `^` or `$` into it",
            ),
            (self.cased && !matches!(self.how, How::Text | How::FieldRef | How::Regex { .. }), "`cased` is for text", "remove it"),
            (
                self.expand && matches!(self.how, How::Regex { .. } | How::FieldRef | How::Exists),
                "placeholders stand for text, numbers and networks",
                "remove `expand`",
            ),
            (
                self.field.is_none() && !matches!(self.how, How::Text | How::Regex { .. }),
                "this modifier needs a field",
                "write the field's name before the `|`",
            ),
        ];
        for (wrong, message, hint) in refused {
            if wrong {
                report.error_hint(self.span, message, hint);
            }
        }
        if self.every.is_some() && (self.field.is_none() || !self.is_bare()) {
            report.error_hint(self.span, "`[any]` and `[all]` take a field and no modifiers", "write the modifiers on the keys inside");
            return false;
        }
        !refused.iter().any(|(wrong, ..)| *wrong)
    }

    fn is_bare(&self) -> bool {
        self.how == How::Text && self.affix.is_none() && self.transforms.is_empty() && !(self.all || self.negated || self.cased || self.expand)
    }
}

struct Chain<'k, 'r> {
    key: &'k mut Key,
    report: &'r mut Report,
    seen: Vec<Modifier>,
    failed: bool,
}

impl Chain<'_, '_> {
    fn add(&mut self, name: &str, span: Span) {
        let Some((_, modifier)) = MODIFIERS.iter().find(|(known, _)| *known == name) else {
            self.failed = true;
            return match FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
                Some((_, hint)) => self.report.error_hint(span, format!("unknown modifier `{name}`"), *hint),
                None => self.report.unknown(span, "modifier", name, MODIFIERS.iter().map(|(name, _)| *name)),
            };
        };
        if self.seen.contains(modifier) {
            return self.fail(span, &format!("`{name}` stands twice"), "remove one");
        }
        self.seen.push(*modifier);
        match *modifier {
            Modifier::All => self.key.all = true,
            Modifier::Neq => self.key.negated = true,
            Modifier::Cased => self.key.cased = true,
            Modifier::Expand => self.key.expand = true,
            Modifier::Affix(affix) => {
                if self.key.affix.replace(affix).is_some() {
                    self.fail(span, "`contains`, `startswith` and `endswith` exclude each other", "keep one; `contains` for anywhere");
                }
            }
            Modifier::Flag(flag) => self.flag(flag, name, span),
            Modifier::Transform(transform) => self.transform(transform, name, span),
            Modifier::Regex => self.how(How::Regex { ignore_case: false, multi_line: false, dot_all: false }, name, span),
            Modifier::Compare(op) => match self.key.how {
                How::Time(part, Comparison::Eq) => self.key.how = How::Time(part, op),
                _ => self.how(How::Compare(op), name, span),
            },
            Modifier::Time(part) => self.how(How::Time(part, Comparison::Eq), name, span),
            Modifier::Cidr => self.how(How::Cidr, name, span),
            Modifier::FieldRef => self.how(How::FieldRef, name, span),
            Modifier::Exists => self.how(How::Exists, name, span),
        }
    }

    fn how(&mut self, how: How, name: &str, span: Span) {
        if self.key.how != How::Text {
            return self.fail(
                span,
                &format!("`{name}` can't be joined with the modifier before it"),
                "each of them says what the value is; keep one",
            );
        }
        self.key.how = how;
    }

    fn flag(&mut self, flag: Flag, name: &str, span: Span) {
        let How::Regex { ignore_case, multi_line, dot_all } = &mut self.key.how else {
            return self.fail(span, &format!("`{name}` is a flag of `re`"), "write it behind `re`, as in `field|re|i`");
        };
        match flag {
            Flag::IgnoreCase => *ignore_case = true,
            Flag::MultiLine => *multi_line = true,
            Flag::DotAll => *dot_all = true,
        }
    }

    fn transform(&mut self, transform: Transform, name: &str, span: Span) {
        if self.key.affix.is_some() && transform != Transform::WinDash {
            return self.fail(span, &format!("`{name}` can't encode the wildcards of the modifier before it"), "write `contains` last");
        }
        self.key.transforms.push(transform);
    }

    fn fail(&mut self, span: Span, message: &str, hint: &str) {
        self.failed = true;
        self.report.error_hint(span, message, hint);
    }
}
