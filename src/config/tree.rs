//! YAML text to any `Deserialize` type, with places in the errors and variables filled in.
//!
//! In: text, variables. Out: the value, or findings. Invariant: a scalar that came from a variable is never quoted in a finding.

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment};

use crate::rule::ast::Span;
use crate::rule::diagnostic::Report;
use crate::rule::yaml::{self, Kind, Node};

pub fn read<T: DeserializeOwned>(text: &str, variables: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Option<T> {
    let documents = yaml::parse(text, report);
    if report.error_count() > 0 {
        return None;
    }
    let [root] = documents.as_slice() else {
        report.error(Span::default(), format!("the config is one document, not {}", documents.len()));
        return None;
    };
    let mut filler = Filler { variables, report, filled: Vec::new() };
    let value = filler.value(root);
    let filled = filler.filled;
    if report.error_count() > 0 {
        return None;
    }
    serde_path_to_error::deserialize(value).map_err(|error| explain(root, &filled, &error, report)).ok()
}

/// The place of the last key of `path` that is there, or the start.
pub fn place(text: &str, path: &[&str]) -> Span {
    let documents = yaml::parse(text, &mut Report::new("".into()));
    let (mut node, mut span) = (documents.first(), Span::default());
    for name in path {
        let entry = node.and_then(Node::entries).and_then(|e| e.iter().find(|(k, _)| k.text() == Some(name)));
        let Some((key, value)) = entry else { break };
        (node, span) = (Some(value), key.span);
    }
    span
}

struct Filler<'a> {
    variables: &'a dyn Fn(&str) -> Option<String>,
    report: &'a mut Report,
    /// Scalars that hold a variable's value.
    filled: Vec<Span>,
}

impl Filler<'_> {
    fn value(&mut self, node: &Node) -> Value {
        match &node.kind {
            Kind::Sequence(items) => Value::Array(items.iter().map(|i| self.value(i)).collect()),
            Kind::Mapping(entries) => {
                let member = |s: &mut Self, (key, value): &(Node, Node)| (key.text().unwrap_or_default().to_owned(), s.value(value));
                Value::Object(entries.iter().map(|e| member(self, e)).collect::<Map<_, _>>())
            }
            Kind::Scalar { .. } if node.is_null() => Value::Null,
            Kind::Scalar { text, plain } => {
                if let Some(flag) = node.as_bool() {
                    return Value::Bool(flag);
                }
                match self.fill(node, text) {
                    // A whole value that is a variable may be a number where one is wanted.
                    // A key of 32 digits would lose its last ones: whole numbers only.
                    Some(filled) => number(&filled).filter(|n| *plain && (n.is_u64() || n.is_i64())).unwrap_or(Value::String(filled)),
                    None => number(text).filter(|_| *plain).unwrap_or_else(|| Value::String(text.clone())),
                }
            }
        }
    }

    /// The text with its `${NAME}` and `${file:PATH}` resolved; `None` if it has none.
    fn fill(&mut self, node: &Node, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else {
                self.report.error_hint(node.span, "`${` without `}`", "write `${NAME}` or `${file:/path}`");
                return None;
            };
            out.push_str(before);
            match name.strip_prefix("file:") {
                Some(path) => match std::fs::read_to_string(path) {
                    Ok(content) => out.push_str(content.trim_end_matches(['\n', '\r'])),
                    Err(error) => self.report.error(node.span, format!("the file `{path}` can't be read: {error}")),
                },
                None => match (self.variables)(name) {
                    Some(value) => out.push_str(&value),
                    None => self.report.error_hint(node.span, format!("the environment has no variable `{name}`"), "set it, or leave the key out"),
                },
            }
            self.filled.push(node.span);
            rest = behind;
        }
        if rest.len() == text.len() {
            return None;
        }
        out.push_str(rest);
        Some(out)
    }
}

fn number(text: &str) -> Option<Value> {
    let is_number = text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit());
    is_number.then(|| text.parse::<Number>().ok()).flatten().map(Value::Number)
}

/// Tells an error at the place that its path leads to.
fn explain(root: &Node, filled: &[Span], error: &serde_path_to_error::Error<serde_json::Error>, report: &mut Report) {
    let node = walk(root, error.path());
    let message = error.inner().to_string();
    let holds_variable = filled.iter().any(|s| node.span.start <= s.start && s.end <= node.span.end);
    if let Some((unknown, known)) = expected_one_of(&message, "unknown field `") {
        let span = key_span(root, unknown, node.span).unwrap_or(node.span);
        report.unknown(span, "key", unknown, known.iter().copied());
    } else if let (Some((unknown, known)), false) = (expected_one_of(&message, "unknown variant `"), holds_variable) {
        report.unknown(node.span, "value", unknown, known.iter().copied());
    } else if holds_variable && !message.starts_with("missing field") {
        report.error(node.span, format!("`{}`: a value that comes from a variable or file does not fit here", error.path()));
    } else {
        report.error(node.span, format!("`{}`: {message}", error.path()));
    }
}

fn walk<'n>(root: &'n Node, path: &Path) -> &'n Node {
    let mut node = root;
    for segment in path.iter() {
        let next = match (segment, &node.kind) {
            (Segment::Map { key }, _) => node.get(key),
            (Segment::Enum { variant }, _) => node.get(variant),
            (Segment::Seq { index }, Kind::Sequence(items)) => items.get(*index),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

/// The key `name` whose value lies at `value`, or which stands in the map there.
fn key_span(node: &Node, name: &str, value: Span) -> Option<Span> {
    let entries = node.entries().unwrap_or_default();
    let here = entries.iter().find(|(k, v)| k.text() == Some(name) && (v.span == value || node.span == value));
    let items: &[Node] = if let Kind::Sequence(items) = &node.kind { items } else { &[] };
    let inside = || entries.iter().map(|(_, v)| v).chain(items).find_map(|v| key_span(v, name, value));
    here.map(|(k, _)| k.span).or_else(inside)
}

/// Serde's `unknown field `x`, expected one of `a`, `b``.
fn expected_one_of<'m>(message: &'m str, lead: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let (key, expected) = message.strip_prefix(lead)?.split_once('`')?;
    Some((key, expected.split('`').skip(1).step_by(2).collect()))
}
