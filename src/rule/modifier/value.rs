//! Values under a key: placeholders filled in, modifiers applied.
//!
//! In: a value node and its key. Out: for each value the tests that stand for it. Invariant: an empty placeholder list makes
//! a test that is never true, so that a `not` over it filters nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::AccountId;
use crate::rule::{
    ast::{Affix, Comparison, Pattern, Spanned, Test, TimePart},
    diagnostic::{Report, shorten},
    modifier::{How, Key, encode},
    yaml::{Kind, Node},
};

/// Tests of one item; config lists count.
const MAX_TESTS: usize = 20_000;

/// The values of `%placeholders%` by name, from the config.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    values: BTreeMap<String, Vec<String>>,
    known: BTreeSet<&'static str>,
}

/// Placeholders that the built-in detectors use; empty until the config fills them.
pub const KNOWN_LISTS: [&str; 9] = [
    "own_accounts",
    "trusted_accounts",
    "own_networks",
    "own_organizations",
    "break_glass_roles",
    "automation_principals",
    "rotation_principals",
    "backup_principals",
    "own_regions",
];

/// Lists that mean something without a rule that names them.
pub const IMPLICIT_LISTS: [&str; 2] = ["own_accounts", "trusted_accounts"];

impl Lists {
    pub fn new(values: BTreeMap<String, Vec<String>>) -> Self {
        Self { values, known: KNOWN_LISTS.into_iter().collect() }
    }

    /// Accounts of `own_accounts` and `trusted_accounts`: twelve digits each, other values are for `expand` alone.
    pub fn own_accounts(&self) -> Vec<AccountId> {
        let values = IMPLICIT_LISTS.into_iter().flat_map(|name| self.get(name));
        values.filter_map(|value| value.as_bytes().try_into().ok().filter(|digits: &AccountId| digits.iter().all(u8::is_ascii_digit))).collect()
    }

    fn get(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    fn is_known(&self, name: &str) -> bool {
        self.values.contains_key(name) || KNOWN_LISTS.contains(&name) || self.known.contains(name)
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.values.keys().map(String::as_str).chain(KNOWN_LISTS)
    }
}

/// The tests of one item: one group for each value, any test of a group stands for it.
pub struct Values {
    pub groups: Vec<Vec<Spanned<Test>>>,
}

impl Key {
    /// Errors have been reported when this is `None`.
    pub fn values(&self, node: &Node, lists: &Lists, report: &mut Report) -> Option<Values> {
        let nodes = match &node.kind {
            Kind::Sequence(items) if items.is_empty() => {
                report.error_hint(node.span, "an empty list can't match", "write `null` for a missing field, or remove the key");
                return None;
            }
            Kind::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let has_placeholder = |value: &Node| value.text().is_some_and(|text| placeholder(text).is_some());
        if self.expand && !nodes.iter().any(has_placeholder) {
            report.error_hint(node.span, "`expand` without a placeholder", "write `%name%`, a list of the config");
            return None;
        }
        let mut groups = Vec::with_capacity(nodes.len());
        let mut total = 0;
        for value in nodes {
            // Go on after a wrong value: all errors in one run.
            if let Some(group) = self.group(value, lists, report) {
                total += group.len();
                groups.push(group);
            }
            if total > MAX_TESTS {
                report.error(node.span, format!("more than {MAX_TESTS} values, placeholders and variants counted"));
                return None;
            }
        }
        if self.all && nodes.len() == 1 {
            report.warn(self.span, "`all` over one value changes nothing", "remove it, or list the values");
        }
        (groups.len() == nodes.len()).then_some(Values { groups })
    }

    fn group(&self, value: &Node, lists: &Lists, report: &mut Report) -> Option<Vec<Spanned<Test>>> {
        let Kind::Scalar { text, plain } = &value.kind else {
            let hint = match &value.kind {
                Kind::Mapping(_) => "write inner fields with dots, as in `outer.inner: value`; for objects in one array `outer[any]: {…}`",
                _ => "write one flat list",
            };
            report.error_hint(value.span, format!("a value can't be {}", value.what()), hint);
            return None;
        };
        if !self.expand {
            return self.tests(value, report);
        }
        match fill(text, lists) {
            Filled::Texts(texts) => {
                let filled = |text| Node { span: value.span, kind: Kind::Scalar { text, plain: *plain } };
                let tests: Vec<_> = texts.into_iter().map(|text| self.tests(&filled(text), report)).collect();
                Some(tests.into_iter().collect::<Option<Vec<_>>>()?.concat())
            }
            Filled::Empty(name) => {
                if !lists.is_known(&name) {
                    let near = crate::rule::diagnostic::nearest(&name, lists.names());
                    let meant = near.map_or("name it under `lists` in the config".into(), |near| format!("did you mean `%{near}%`?"));
                    report.warn(value.span, format!("no list `{}`: this value never matches", shorten(&name)), meant);
                }
                Some(vec![Spanned { value: Test::Unexpanded { name }, span: value.span }])
            }
            Filled::TooMany => {
                report.error(value.span, format!("the placeholders stand for more than {MAX_TESTS} values"));
                None
            }
        }
    }

    /// The tests that stand for one value, `None` after an error.
    fn tests(&self, value: &Node, report: &mut Report) -> Option<Vec<Spanned<Test>>> {
        let tests = match self.how {
            How::Text => self.text(value),
            How::Regex { ignore_case, multi_line, dot_all } => {
                regex(value).map(|source| vec![Test::Regex { source, ignore_case, multi_line, dot_all }])
            }
            How::Compare(op) => compare(value, op).map(|test| vec![test]),
            How::Time(part, op) => time_part(value, part, op).map(|test| vec![test]),
            How::Cidr => cidr(value).map(|test| vec![test]),
            How::FieldRef => self.field_ref(value).map(|test| vec![test]),
            How::Exists => exists(value).map(|test| vec![test]),
        };
        match tests {
            Ok(tests) => Some(tests.into_iter().map(|test| Spanned { value: test, span: value.span }).collect()),
            Err((message, hint)) => {
                report.error_hint(value.span, message, hint);
                None
            }
        }
    }

    fn text(&self, value: &Node) -> Result<Vec<Test>, Wrong> {
        let text = value.text().unwrap_or_default();
        if value.is_null() {
            return match self.field {
                Some(_) if self.affix.is_none() && self.transforms.is_empty() => Ok(vec![Test::Null]),
                Some(_) => wrong("this modifier needs text, not null", "remove the modifier, or quote the text"),
                None => wrong("a keyword can't be null", "write the text to look for"),
            };
        }
        if self.field.is_some() && self.affix.is_none() && self.transforms.is_empty() && !self.cased {
            if let Some(boolean) = value.as_bool() {
                return Ok(vec![Test::Bool(boolean)]);
            }
            if let Some(number) = value.as_number() {
                return Ok(vec![Test::Number(number)]);
            }
        }
        // A keyword is looked for anywhere in a value.
        let affix = self.affix.or(self.field.is_none().then_some(Affix::Contains));
        let patterns =
            encode::apply(Pattern::parse(text), &self.transforms).or_else(|message| wrong(message, "change the value or the modifiers"))?;
        let test = |pattern: Pattern| Test::Text { pattern: affix.map_or(pattern.clone(), |affix| pattern.with(affix)), cased: self.cased };
        Ok(patterns.into_iter().map(test).collect())
    }

    fn field_ref(&self, value: &Node) -> Result<Test, Wrong> {
        match value.text().map(Pattern::parse).as_ref().and_then(Pattern::as_plain) {
            Some(field) if !field.is_empty() && !value.is_null() => {
                Ok(Test::FieldRef { field: field.to_owned(), how: self.affix.unwrap_or(Affix::Whole), cased: self.cased })
            }
            _ => wrong("`fieldref` needs the name of a field, without wildcards", "write the other field's path"),
        }
    }
}

type Wrong = (String, String);

fn wrong<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), hint.into()))
}

fn regex(value: &Node) -> Result<String, Wrong> {
    use regex_syntax::{Error, ast};
    let source = value.text().unwrap_or_default();
    if source.is_empty() {
        return wrong("an empty regular expression matches everything", "use `exists: true`, or write the expression");
    }
    // Only names of classes and the `u` flag are checked by the costly half of the parser.
    let simple = !["\\p", "\\P", "-u"].iter().any(|mark| source.contains(mark));
    let parsed = match simple {
        true => ast::parse::Parser::new().parse(source).map(drop).map_err(Error::from),
        false => regex_syntax::parse(source).map(drop),
    };
    let Err(error) = parsed else { return Ok(source.to_owned()) };
    match &error {
        Error::Parse(parse) => {
            let hint = match parse.kind() {
                ast::ErrorKind::UnsupportedLookAround => "Sigma's expressions have no look-around: use a second key, or a filter with `not`",
                ast::ErrorKind::UnsupportedBackreference => "Sigma's expressions have no backreferences: use `fieldref` to compare fields",
                ast::ErrorKind::RepetitionMissing => "escape `*`, `+` and `?` with `\\` where the character is meant",
                _ => "Sigma's expressions are the plain part of PCRE: . ^ $ * + ? {n,m} [] | ()",
            };
            wrong(format!("regular expression, character {}: {}", parse.span().start.offset + 1, parse.kind()), hint)
        }
        Error::Translate(translate) => wrong(format!("regular expression: {}", translate.kind()), "check the class or escape"),
        _ => wrong("the regular expression can't be read", "check it"),
    }
}

fn compare(value: &Node, op: Comparison) -> Result<Test, Wrong> {
    match value.as_number() {
        Some(lexeme) => match lexeme.parse() {
            Ok(number) => Ok(Test::Compare { op, number, lexeme }),
            Err(_) => wrong("this number can't be compared", "write it in decimal"),
        },
        None => wrong(format!("a comparison needs a number, not `{}`", shorten(value.text().unwrap_or_default())), "write a number without quotes"),
    }
}

fn time_part(value: &Node, part: TimePart, op: Comparison) -> Result<Test, Wrong> {
    let range = match part {
        TimePart::Minute => 0..=59,
        TimePart::Hour => 0..=23,
        TimePart::Day => 1..=31,
        TimePart::Week => 1..=53,
        TimePart::Month => 1..=12,
        TimePart::Year => 1..=9999,
    };
    match value.as_number().and_then(|number| number.parse().ok()) {
        Some(value) if range.contains(&value) => Ok(Test::TimePart { part, op, value }),
        _ => wrong("not a value of this part of a time", format!("write a whole number from {} to {}", range.start(), range.end())),
    }
}

fn cidr(value: &Node) -> Result<Test, Wrong> {
    let text = value.text().unwrap_or_default().trim();
    let net = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
    match net {
        Ok(net) => Ok(Test::Cidr(net.trunc())),
        Err(_) => wrong(format!("`{}` is no network", shorten(text)), "write CIDR notation, as in `10.0.0.0/8` or `2001:db8::/32`"),
    }
}

fn exists(value: &Node) -> Result<Test, Wrong> {
    match value.as_bool() {
        Some(exists) => Ok(Test::Exists(exists)),
        None => wrong("`exists` needs true or false", "write `true` or `false` without quotes"),
    }
}

enum Filled {
    Texts(Vec<String>),
    /// This list has no values.
    Empty(String),
    TooMany,
}

/// Every way to fill the placeholders of `text`.
fn fill(text: &str, lists: &Lists) -> Filled {
    let mut texts = vec![String::new()];
    let mut rest = text;
    while let Some((before, name, after)) = placeholder(rest) {
        let values = lists.get(name);
        if values.is_empty() {
            return Filled::Empty(name.to_owned());
        }
        if texts.len().saturating_mul(values.len()) > MAX_TESTS {
            return Filled::TooMany;
        }
        texts = texts.iter().flat_map(|text| values.iter().map(move |value| format!("{text}{before}{value}"))).collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Filled::Texts(texts)
}

/// Names of all `%name%` in a text.
pub fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, name, after) = placeholder(rest)?;
        rest = after;
        Some(name)
    })
}

/// The first `%name%`: text before, name, text behind.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find('%')?;
        let end = start + 1 + text[start + 1..].find('%')?;
        let name = &text[start + 1..end];
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
            return Some((&text[..start], name, &text[end + 1..]));
        }
        from = end;
    }
}
