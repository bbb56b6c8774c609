//! Warnings about a correlation: fields that no event of its rules can have.
//!
//! In: a linked correlation. Out: warnings at its group-by and value fields, or at the alias that names the field. Invariant: a
//! child whose log source isn't known for sure, or that is a correlation itself (the linker checks those), is left alone.

use crate::rule::{
    ast::{Correlation, CorrelationKind, Meta, Spanned},
    diagnostic::{Diagnostic, Report, shorten},
    load::{LinkedCorrelation, Reference, RuleSet},
};

pub(super) fn check(set: &RuleSet, linked: &LinkedCorrelation, found: &mut Vec<Diagnostic>) {
    let correlation = &linked.correlation;
    let mut report = Report::new(correlation.meta.file.clone());
    for name in correlation.group_by.iter().chain(value_fields(correlation)) {
        // One warning a place is enough, however many rules lack the field.
        let mut told = Vec::new();
        for (child, reference) in linked.children.iter().zip(&correlation.rules) {
            let Reference::Rule(index) = child else { continue };
            let rule = &set.rules[*index].rule;
            // A rule with state tells its own group's fields, under its own names.
            if rule.meta.ext.state.is_some() || !super::is_cloudtrail(&rule.logsource) {
                continue;
            }
            let field = field_of(correlation, &rule.meta, name);
            if told.contains(&field.span.start) {
                continue;
            }
            if let Some((message, hint)) = super::missing(&field.value) {
                told.push(field.span.start);
                let of = shorten(&reference.value);
                let hint = format!("{hint}; events of `{of}` would all fall into one group, or `aliases` can name the field for it");
                report.warn(field.span, message, hint);
            }
        }
    }
    found.extend(report.found);
}

fn value_fields(correlation: &Correlation) -> &[Spanned<String>] {
    match &correlation.kind {
        CorrelationKind::ValueCount { fields } => fields,
        CorrelationKind::ValueSum { field } | CorrelationKind::ValueAvg { field } | CorrelationKind::ValuePercentile { field, .. } => {
            std::slice::from_ref(field)
        }
        CorrelationKind::EventCount | CorrelationKind::Temporal | CorrelationKind::TemporalOrdered => &[],
    }
}

/// The field that stands behind a name in a child's events.
fn field_of<'a>(correlation: &'a Correlation, child: &Meta, name: &'a Spanned<String>) -> &'a Spanned<String> {
    let is_child = |rule: &str| [&child.id, &child.name].into_iter().flatten().any(|own| own.value == rule);
    let lines = correlation.aliases.iter().filter(|alias| alias.name.value == name.value).flat_map(|alias| &alias.fields);
    lines.into_iter().find(|(rule, _)| is_child(&rule.value)).map_or(name, |(_, field)| field)
}
