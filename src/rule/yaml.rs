//! YAML text to a tree in which every node knows its place.
//!
//! In: one file's text. Out: its documents, and errors with spans. Invariant: depth, nodes and size are bounded, whatever the
//! text, and no mapping of the tree has a key twice.
//!
//! Format: YAML 1.2.2 as `saphyr-parser` reads it, with the core schema; anchors and aliases, no merge keys, no custom tags.

use std::collections::HashSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::rule::{
    ast::Span,
    diagnostic::{Report, shorten},
};

/// A rule file larger than this is a mistake or an attack.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Deepest nesting, aliases followed.
pub const MAX_DEPTH: usize = 64;
/// Nodes of one file, aliases followed: an alias costs what it stands for.
pub const MAX_NODES: usize = 200_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `plain`: written without quotes, so that `null`, `true` and `5` mean more than their text.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar, whatever its style.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn entries(&self) -> Option<&[(Node, Node)]> {
        match &self.kind {
            Kind::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value under `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// An empty or `null` scalar without quotes.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// `true` and `false` without quotes.
    pub fn as_bool(&self) -> Option<bool> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The lexeme of a number without quotes, in plain decimal where it is an integer. A number with leading zeros is text:
    /// that is how account ids are written.
    pub fn as_number(&self) -> Option<String> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => number(text),
            _ => None,
        }
    }

    /// The place of characters `range` of a scalar's text, where its source shows them one to one; else the whole scalar's.
    pub fn piece(&self, range: std::ops::Range<usize>) -> Span {
        let Some(text) = self.text() else { return self.span };
        let quotes = (self.span.end - self.span.start) as usize - text.len().min((self.span.end - self.span.start) as usize);
        let shift = match quotes {
            0 => 0,
            2 => 1,
            _ => return self.span,
        };
        let at = |offset: usize| self.span.start + shift + offset.min(text.len()) as u32;
        Span { start: at(range.start), end: at(range.end) }
    }

    pub fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a value",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a map",
        }
    }
}

fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let radix = |prefix: &str, radix| digits.strip_prefix(prefix).map(|digits| u128::from_str_radix(digits, radix).ok());
    if let Some(parsed) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return parsed.filter(|_| sign.is_empty() && digits.len() == text.len()).map(|value| value.to_string());
    }
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    let numeric = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.parse::<f64>().is_ok_and(f64::is_finite);
    (numeric && !leading_zero).then(|| format!("{sign}{digits}"))
}

/// The documents of a file up to its first YAML error; empty documents are left out.
pub fn parse(text: &str, report: &mut Report) -> Vec<Node> {
    if text.len() > MAX_FILE_BYTES {
        report.error(Span::default(), format!("the file is larger than {MAX_FILE_BYTES} bytes"));
        return Vec::new();
    }
    // The scanner takes NUL for the end of input: what follows would be silently left out.
    if let Some(at) = text.find('\0') {
        report.error(Span { start: at as u32, end: at as u32 + 1 }, "a NUL character is not allowed in YAML");
        return Vec::new();
    }
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    Builder::new(body, (text.len() - body.len()) as u32, report).run(body)
}

/// Turns the scanner's character positions into byte offsets.
struct Offsets {
    base: u32,
    /// Byte offset of every character; empty when the text is ASCII and they are the same.
    of_char: Vec<u32>,
    len: u32,
}

impl Offsets {
    fn new(body: &str, base: u32) -> Self {
        let of_char = if body.is_ascii() { Vec::new() } else { body.char_indices().map(|(at, _)| at as u32).collect() };
        Self { base, of_char, len: body.len() as u32 }
    }

    fn of(&self, marker: Marker) -> u32 {
        let at = marker.index();
        let offset = if self.of_char.is_empty() { (at as u32).min(self.len) } else { self.of_char.get(at).copied().unwrap_or(self.len) };
        self.base + offset
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let start = self.of(span.start);
        Span { start, end: self.of(span.end).max(start) }
    }
}

/// A collection whose end has not been read.
struct Open {
    span: Span,
    anchor: usize,
    nodes_before: usize,
    /// Deepest nesting below, itself counted as 1.
    height: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Node)>, key: Option<Node>, seen: Seen },
}

/// The keys of an open mapping: looked through one by one while they are few.
#[derive(Default)]
struct Seen(Option<HashSet<String>>);

impl Seen {
    const FEW: usize = 16;

    /// False if `key` is among those of `entries`.
    fn insert(&mut self, key: &str, entries: &[(Node, Node)]) -> bool {
        if entries.len() < Self::FEW {
            return !entries.iter().any(|(known, _)| known.text() == Some(key));
        }
        let keys = || entries.iter().filter_map(|(known, _)| known.text().map(str::to_owned)).collect();
        self.0.get_or_insert_with(keys).insert(key.to_owned())
    }
}

struct Anchored {
    id: usize,
    node: Node,
    nodes: usize,
    height: usize,
}

struct Builder<'r> {
    offsets: Offsets,
    report: &'r mut Report,
    stack: Vec<Open>,
    anchors: Vec<Anchored>,
    nodes: usize,
    documents: Vec<Node>,
}

/// The error has been reported; the rest of the file can't be trusted.
struct Stop;

impl<'r> Builder<'r> {
    fn new(body: &str, base: u32, report: &'r mut Report) -> Self {
        let offsets = Offsets::new(body, base);
        Self { offsets, report, stack: Vec::new(), anchors: Vec::new(), nodes: 0, documents: Vec::new() }
    }

    fn run(mut self, body: &str) -> Vec<Node> {
        let mut parser = Parser::new_from_str(body);
        while let Some(event) = parser.next_event() {
            let step = match event {
                Ok((event, span)) => {
                    let span = self.offsets.span(span);
                    self.event(event, span)
                }
                Err(error) => {
                    let start = self.offsets.of(*error.marker());
                    self.report.error(Span { start, end: start }, format!("YAML: {}", error.info()));
                    Err(Stop)
                }
            };
            if step.is_err() {
                break;
            }
        }
        self.documents
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.forces_text(tag.as_deref(), span)?;
                self.place(Node { span, kind: Kind::Scalar { text: text.into_owned(), plain } }, anchor, 1, 1)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.forces_text(tag.as_deref(), span)?;
                self.open(span, anchor, OpenKind::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.forces_text(tag.as_deref(), span)?;
                self.open(span, anchor, OpenKind::Mapping { entries: Vec::new(), key: None, seen: Seen::default() })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span)?,
            Event::Alias(id) => self.alias(id, span)?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
        }
        Ok(())
    }

    /// `!!str` makes a plain scalar text; other core tags say what the scalar says already.
    fn forces_text(&mut self, tag: Option<&Tag>, span: Span) -> Result<bool, Stop> {
        match tag {
            None => Ok(false),
            Some(tag) if tag.is_yaml_core_schema() || (tag.handle == "!" && tag.suffix.is_empty()) => Ok(matches!(&*tag.suffix, "str" | "")),
            Some(tag) => {
                self.report.error_hint(span, format!("tag `{}` is not allowed", shorten(&tag.to_string())), "remove the tag");
                Err(Stop)
            }
        }
    }

    fn open(&mut self, span: Span, anchor: usize, kind: OpenKind) -> Result<(), Stop> {
        if self.stack.len() + 1 > MAX_DEPTH {
            self.report.error(span, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        if matches!(self.stack.last(), Some(Open { kind: OpenKind::Mapping { key: None, .. }, .. })) {
            self.report.error(span, "a map's key must be a single value");
            return Err(Stop);
        }
        self.stack.push(Open { span, anchor, nodes_before: self.nodes, height: 1, kind });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Stop> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let kind = match open.kind {
            OpenKind::Sequence(items) => Kind::Sequence(items),
            OpenKind::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        // A block collection "ends" where the next token begins: take the end of its last child instead.
        let last = match &kind {
            Kind::Sequence(items) => items.last().map(|item| item.span.end),
            Kind::Mapping(entries) => entries.last().map(|(_, value)| value.span.end),
            Kind::Scalar { .. } => None,
        };
        let end = if end.end > end.start { end.end } else { last.unwrap_or(open.span.end) };
        let span = Span { start: open.span.start, end: end.max(open.span.start) };
        let nodes = self.nodes - open.nodes_before + 1;
        self.place(Node { span, kind }, open.anchor, nodes, open.height)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Stop> {
        let Some(anchored) = self.anchors.iter().find(|anchored| anchored.id == id) else {
            self.report.error(span, "this alias stands for nothing in its document, or for something that contains it");
            return Err(Stop);
        };
        let (nodes, height) = (anchored.nodes, anchored.height);
        if self.stack.len() + height > MAX_DEPTH {
            self.report.error(span, format!("nested deeper than {MAX_DEPTH} levels through this alias"));
            return Err(Stop);
        }
        if self.nodes + nodes > MAX_NODES {
            return self.too_many(span);
        }
        let node = anchored.node.clone();
        self.nodes += nodes - 1;
        self.place(node, 0, nodes, height)
    }

    /// Puts a finished node where it belongs. `nodes` and `height` describe the subtree; all but the node itself is counted.
    fn place(&mut self, node: Node, anchor: usize, nodes: usize, height: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.too_many(node.span);
        }
        if anchor > 0 {
            self.nodes += nodes;
            if self.nodes > MAX_NODES {
                return self.too_many(node.span);
            }
            self.anchors.push(Anchored { id: anchor, node: node.clone(), nodes, height });
        }
        let Some(parent) = self.stack.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        parent.height = parent.height.max(height + 1);
        match &mut parent.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping { entries, key: slot, seen } => match slot.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Some(text) = node.text() else {
                        self.report.error(node.span, "a map's key must be a single value");
                        return Err(Stop);
                    };
                    if text == "<<" {
                        self.report.error_hint(node.span, "merge keys are not part of YAML 1.2", "write the entries out");
                    } else if !seen.insert(text, entries) {
                        let message = format!("the key `{}` stands twice in this map", shorten(text));
                        self.report.error_hint(node.span, message, "only one of them could count; join or remove one");
                    }
                    *slot = Some(node);
                }
            },
        }
        Ok(())
    }

    fn too_many(&mut self, span: Span) -> Result<(), Stop> {
        self.report.error(span, format!("more than {MAX_NODES} values in one file, aliases counted in full"));
        Err(Stop)
    }
}

#[cfg(test)]
mod tests;
