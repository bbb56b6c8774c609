//! Filter documents.
//!
//! In: a document with a `filter` part. Out: `Filter`. Invariant: the condition's indexes point into its selections.
//!
//! Format: Sigma 2.1.0 filters; `rules: any` as pySigma has it.

use crate::rule::{
    ast::{Condition, Filter, Spanned},
    detection,
    diagnostic::Report,
    meta,
    modifier::Lists,
    yaml::Node,
};

/// Errors have been reported when this is `None`.
pub(in crate::rule) fn parse(document: &Node, node: &Node, lists: &Lists, report: &mut Report) -> Option<Filter> {
    let title = meta::title(document, report);
    let id = meta::id(document, report);
    let logsource = meta::logsource(document, report);
    let rules = match node.get("rules") {
        Some(rules) => match meta::texts(rules, "rules", report) {
            names if matches!(names.as_slice(), [one] if one.value == "any") => Some(None),
            names if names.is_empty() => {
                report.error_hint(rules.span, "the filter names no rule", "list ids or names, or write `rules: any`");
                None
            }
            names => Some(Some(names)),
        },
        None => {
            report.error_hint(node.span, "a filter needs `rules`", "list ids or names of rules, or write `rules: any`");
            None
        }
    };
    let detection = detection::parse(node, &["rules"], lists, report)?;
    let mut conditions = detection.conditions;
    let condition = if conditions.len() == 1 {
        conditions.remove(0)
    } else {
        let span = conditions.first()?.span;
        Spanned { value: Condition::Or(conditions.into_iter().map(|condition| condition.value).collect()), span }
    };
    Some(Filter {
        file: report.file.clone(),
        title: title?,
        id,
        logsource: logsource?,
        rules: rules?,
        selections: detection.selections,
        condition,
        span: document.span,
    })
}
