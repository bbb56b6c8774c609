//! The descriptive half of a document, and readers for the plain parts of YAML that the others share.
//!
//! In: a document's mapping. Out: `Meta`, `LogSource`. Invariant: a missing or odd part that changes what is detected is an
//! error; one that only describes is a warning.

use std::collections::HashSet;

use crate::rule::{
    ast::{Extension, Level, LogSource, Meta, Span, Spanned, Status},
    diagnostic::{Report, nearest, shorten},
    extension,
    yaml::{Kind, Node},
};

/// Sigma's own top-level keys and ours. Others are custom attributes and allowed.
const KEYS: [&str; 22] = [
    "title",
    "id",
    "name",
    "status",
    "description",
    "author",
    "date",
    "modified",
    "references",
    "related",
    "tags",
    "level",
    "falsepositives",
    "fields",
    "license",
    "taxonomy",
    "scope",
    "logsource",
    "detection",
    "correlation",
    "filter",
    "trailwarden",
];

pub(in crate::rule) const LEVELS: [(&str, Level); 5] =
    [("informational", Level::Informational), ("low", Level::Low), ("medium", Level::Medium), ("high", Level::High), ("critical", Level::Critical)];

pub(in crate::rule) const STATUSES: [(&str, Status); 5] = [
    ("stable", Status::Stable),
    ("test", Status::Test),
    ("experimental", Status::Experimental),
    ("deprecated", Status::Deprecated),
    ("unsupported", Status::Unsupported),
];

pub(in crate::rule) const RELATIONS: [&str; 6] = ["derived", "obsolete", "obsoletes", "merged", "renamed", "similar"];

/// `None` after an error that leaves no document worth having (no title).
pub(in crate::rule) fn parse(document: &Node, report: &mut Report) -> Option<Meta> {
    for (key, _) in document.entries().unwrap_or_default() {
        let name = key.text().unwrap_or_default();
        if !KEYS.contains(&name)
            && let Some(near) = nearest(name, KEYS)
        {
            report.warn(key.span, format!("`{}` is no key of Sigma", shorten(name)), format!("did you mean `{near}`?"));
        }
    }
    let title = title(document, report);
    let ext = document.get("trailwarden").map_or_else(Extension::default, |node| extension::parse(node, report));
    let meta = Meta {
        file: report.file.clone(),
        id: id(document, report),
        name: document.get("name").and_then(|node| text(node, "name", report)),
        title: title?,
        status: document.get("status").and_then(|node| choice(node, "status", &STATUSES, report)),
        level: document.get("level").and_then(|node| choice(node, "level", &LEVELS, report)).unwrap_or(Level::Medium),
        tags: tags(document, report),
        description: described(document, "description", report),
        author: described(document, "author", report),
        date: date(document, "date", report),
        modified: date(document, "modified", report),
        references: values(&list(document, "references", report)),
        false_positives: values(&list(document, "falsepositives", report)),
        related: related(document, report),
        ext,
        span: document.span,
    };
    if matches!(meta.status, Some(Status::Deprecated | Status::Unsupported))
        && let Some(node) = document.get("status")
    {
        report.warn(node.span, "the rule's author says that it should not be used", "it runs all the same; remove the file to stop it");
    }
    Some(meta)
}

pub(in crate::rule) fn title(document: &Node, report: &mut Report) -> Option<Spanned<String>> {
    let Some(node) = document.get("title") else {
        let start = document.span.start;
        report.error_hint(Span { start, end: start }, "the document has no title", "add `title: what it detects`");
        return None;
    };
    text(node, "title", report)
}

pub(in crate::rule) fn id(document: &Node, report: &mut Report) -> Option<Spanned<String>> {
    let id = text(document.get("id")?, "id", report)?;
    let uuid = id.value.len() == 36
        && id.value.bytes().enumerate().all(|(at, byte)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    if !uuid {
        report.warn(id.span, "the id is no UUID", "other Sigma tools refuse it; make one with `uuidgen`");
    }
    Some(id)
}

pub(in crate::rule) fn logsource(document: &Node, report: &mut Report) -> Option<LogSource> {
    let Some(node) = document.get("logsource") else {
        let start = document.span.start;
        let hint = "add `logsource: {product: aws, service: cloudtrail}`";
        report.error_hint(Span { start, end: start }, "the document has no logsource", hint);
        return None;
    };
    if node.entries().is_none() {
        report.error_hint(node.span, format!("a logsource is a map, not {}", node.what()), "write `product:` and `service:` under it");
        return None;
    }
    let mut part = |key| node.get(key).filter(|node| !node.is_null()).and_then(|node| text(node, key, report));
    let source = LogSource { category: part("category"), product: part("product"), service: part("service") };
    if source == LogSource::default() {
        report.error_hint(node.span, "the logsource names no category, product or service", "write `product: aws` and `service: cloudtrail`");
        return None;
    }
    Some(source)
}

/// One word of a fixed set.
pub(in crate::rule) fn choice<T: Copy>(node: &Node, what: &str, known: &[(&'static str, T)], report: &mut Report) -> Option<T> {
    let word = text(node, what, report)?;
    let found = known.iter().find(|(name, _)| *name == word.value).map(|(_, value)| *value);
    if found.is_none() {
        report.unknown(word.span, what, &word.value, known.iter().map(|(name, _)| *name));
    }
    found
}

/// A scalar that is not empty.
pub(in crate::rule) fn text(node: &Node, what: &str, report: &mut Report) -> Option<Spanned<String>> {
    match node.text() {
        Some(value) if !node.is_null() && !value.trim().is_empty() => Some(Spanned { value: value.trim().to_owned(), span: node.span }),
        _ => {
            report.error(node.span, format!("`{what}` must be text, not {}", node.what()));
            None
        }
    }
}

/// A scalar or a list of scalars.
pub(in crate::rule) fn texts(node: &Node, what: &str, report: &mut Report) -> Vec<Spanned<String>> {
    match &node.kind {
        Kind::Sequence(items) => items.iter().filter_map(|item| text(item, what, report)).collect(),
        _ => text(node, what, report).into_iter().collect(),
    }
}

fn list(document: &Node, key: &str, report: &mut Report) -> Vec<Spanned<String>> {
    document.get(key).filter(|node| !node.is_null()).map_or_else(Vec::new, |node| texts(node, key, report))
}

fn values(list: &[Spanned<String>]) -> Vec<String> {
    list.iter().map(|entry| entry.value.clone()).collect()
}

fn described(document: &Node, key: &str, report: &mut Report) -> String {
    match document.get(key).filter(|node| !node.is_null()) {
        Some(node) if matches!(node.kind, Kind::Scalar { .. }) => node.text().unwrap_or_default().trim().to_owned(),
        Some(node) => {
            report.warn(node.span, format!("`{key}` should be text, not {}", node.what()), "it is left out");
            String::new()
        }
        None => String::new(),
    }
}

fn date(document: &Node, key: &str, report: &mut Report) -> Option<String> {
    let date = described(document, key, report);
    if date.is_empty() {
        return None;
    }
    let shape = date.len() == 10 && date.bytes().enumerate().all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    if !shape && let Some(node) = document.get(key) {
        report.warn(node.span, format!("`{key}` is no date"), "write YYYY-MM-DD");
    }
    Some(date)
}

fn tags(document: &Node, report: &mut Report) -> Vec<Spanned<String>> {
    let tags = list(document, "tags", report);
    let mut seen = HashSet::new();
    for tag in &tags {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
        if !tag.value.contains('.') || !tag.value.bytes().all(plain) {
            report.warn(tag.span, format!("tag `{}` has no namespace or other letters", shorten(&tag.value)), "write `namespace.name` in lower case");
        }
        if !seen.insert(tag.value.as_str()) {
            report.warn(tag.span, format!("tag `{}` stands twice", shorten(&tag.value)), "remove one");
        }
    }
    tags
}

fn related(document: &Node, report: &mut Report) -> Vec<(String, String)> {
    let Some(node) = document.get("related").filter(|node| !node.is_null()) else { return Vec::new() };
    let Kind::Sequence(items) = &node.kind else {
        report.warn(node.span, "`related` should be a list of {id, type}", "it is left out");
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for item in items {
        match (item.get("id").and_then(Node::text), item.get("type").and_then(Node::text)) {
            (Some(id), Some(kind)) if RELATIONS.contains(&kind) => pairs.push((id.to_owned(), kind.to_owned())),
            _ => report.warn(item.span, "not a relation that Sigma knows", format!("write {{id: …, type: …}} with one of: {}", RELATIONS.join(", "))),
        }
    }
    pairs
}
