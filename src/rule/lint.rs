//! Warnings about rules that are well-formed and still can't mean what they say.
//!
//! In: a linked set. Out: warnings. Invariant: each warning is certain about the rule, or about CloudTrail by a fact of
//! `facts`; nothing here changes what a rule does.

use std::collections::{HashMap, HashSet};

use crate::event::derived;
use crate::rule::{
    ast::{Block, Filter, Item, Level, LogSource, Meta, Rule, Selection, Span, Spanned, Target, Test},
    diagnostic::{Diagnostic, Report, nearest, shorten},
    load::RuleSet,
};

mod correlation;
mod facts;
mod logic;

/// All warnings about `set`.
pub fn lint(set: &RuleSet) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut ids: HashMap<&str, &Meta> = HashMap::new();
    for linked in &set.rules {
        let rule = &linked.rule;
        let mut report = Report::new(rule.meta.file.clone());
        rule_facts(rule, &mut report);
        logic::check(rule, linked.role.alerts && rule.meta.ext.state.is_none(), &mut report);
        found.extend(report.found);
        ids.insert(rule.meta.key(), &rule.meta);
    }
    for linked in &set.correlations {
        ids.insert(linked.correlation.meta.key(), &linked.correlation.meta);
        correlation::check(set, linked, &mut found);
    }
    for filter in &set.filters {
        let mut report = Report::new(filter.file.clone());
        filter_facts(filter, &mut report);
        found.extend(report.found);
    }
    for meta in ids.values() {
        obsolete(meta, &ids, &mut found);
    }
    found.sort_by(|left, right| (&left.file, left.span.start).cmp(&(&right.file, right.span.start)));
    found
}

fn rule_facts(rule: &Rule, report: &mut Report) {
    source_facts(&rule.logsource, report);
    let used = logic::used(rule.conditions.iter().map(|condition| &condition.value));
    let own = rule.selections.iter().filter(|selection| logic::is_own(rule, selection)).count();
    selections(&rule.selections[..own], &used, &rule.logsource, report);
    if is_cloudtrail(&rule.logsource) {
        for field in fields_of_extension(&rule.meta) {
            field_facts(&field, report);
        }
    }
}

fn filter_facts(filter: &Filter, report: &mut Report) {
    source_facts(&filter.logsource, report);
    let used = logic::used([&filter.condition.value]);
    selections(&filter.selections, &used, &filter.logsource, report);
}

fn selections(selections: &[Selection], used: &HashSet<usize>, logsource: &LogSource, report: &mut Report) {
    for (index, selection) in selections.iter().enumerate() {
        if !used.contains(&index) {
            let message = format!("selection `{}` is never used", shorten(&selection.name.value));
            report.warn(selection.name.span, message, "name it in the condition, or remove it");
        }
        for item in logic::items(&selection.body) {
            repeated_values(item, report);
            plain_placeholders(item, report);
            if is_cloudtrail(logsource) {
                item_facts(item, report);
            }
        }
        if is_cloudtrail(logsource) {
            blocks(&selection.body, report);
        }
    }
}

/// A log source that no event has.
fn source_facts(source: &LogSource, report: &mut Report) {
    let mut warn = |part: &Spanned<String>, known: Vec<&str>| {
        if !known.iter().any(|name| part.value.eq_ignore_ascii_case(name)) {
            let message = format!("no log that is read here is `{}`: the rule never matches", shorten(&part.value));
            report.warn(part.span, message, format!("one of {}; or leave the line out, which fits every log", known.join(", ")));
        }
    };
    let product = source.product.as_ref().map_or("", |product| product.value.as_str());
    if let Some(part) = &source.product {
        warn(part, facts::PRODUCTS.iter().map(|known| known.0).collect());
    }
    if let Some(part) = &source.category {
        warn(part, facts::CATEGORIES.to_vec());
    }
    let services = facts::PRODUCTS.iter().find(|known| known.0.eq_ignore_ascii_case(product)).map_or(&[][..], |known| known.1);
    if let (Some(part), false) = (&source.service, services.is_empty()) {
        warn(part, services.to_vec());
    }
}

fn is_cloudtrail(logsource: &LogSource) -> bool {
    let is = |part: &Option<Spanned<String>>, name: &str| part.as_ref().is_some_and(|part| part.value.eq_ignore_ascii_case(name));
    is(&logsource.product, "aws") && is(&logsource.service, "cloudtrail")
}

fn fields_of_extension(meta: &Meta) -> Vec<Spanned<String>> {
    let mut fields = meta.ext.group.clone();
    fields.extend(meta.ext.state.iter().flat_map(|state| state.value.fields()).cloned());
    if let Some(summary) = &meta.ext.summary {
        let named = summary.value.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let named = named.flat_map(|(fields, _)| fields.split('|'));
        fields.extend(named.map(|field| Spanned { value: field.to_owned(), span: summary.span }));
    }
    fields
}

fn field_facts(field: &Spanned<String>, report: &mut Report) {
    if let Some((message, hint)) = missing(&field.value) {
        report.warn(field.span, message, hint);
    }
}

/// Why no CloudTrail record has the field, and what to do; `None` if one may.
fn missing(name: &str) -> Option<(String, String)> {
    if !name.starts_with("derived.") {
        return facts::unknown_field(name);
    }
    if derived::mask(name) == 0 {
        let near = nearest(name, derived::FIELDS.iter().map(|(known, ..)| *known));
        let hint = near.map_or("`trailwarden schema rule` lists them".into(), |near| format!("did you mean `{near}`?"));
        return Some((format!("there is no derived field `{}`", shorten(name)), hint));
    }
    derived::foreign_source(name).and_then(facts::unknown_field)
}

fn item_facts(item: &Item, report: &mut Report) {
    let Target::Field(field) = &item.target else { return };
    field_facts(field, report);
    for test in &item.tests {
        match &test.value {
            Test::Text { pattern, .. } => {
                let Some(text) = pattern.as_plain() else { continue };
                if let Some(says) = facts::impossible_value(&field.value, text) {
                    report.warn(test.span, format!("`{}` never is `{}`", field.value, shorten(text)), says);
                }
                names_a_field(text, test.span, report);
            }
            Test::FieldRef { field: other, how: crate::rule::ast::Affix::Whole, .. } => {
                let (arn, name) = (is_arn(&field.value), is_user_name(other));
                if (arn && name) || (is_user_name(&field.value) && is_arn(other)) {
                    report.warn(test.span, "an ARN never equals a user name", "compare with `endswith`, or with `userIdentity.userName`");
                }
            }
            _ => {}
        }
    }
    contained_path(item, report);
}

fn is_arn(field: &str) -> bool {
    field.ends_with(".arn") || field.ends_with("Arn")
}

fn is_user_name(field: &str) -> bool {
    field.ends_with(".userName")
}

/// `field: requestParameters.x` compares with these very letters.
fn names_a_field(text: &str, span: Span, report: &mut Report) {
    let begins = ["requestParameters.", "responseElements.", "userIdentity.", "additionalEventData."];
    if begins.iter().any(|begin| text.starts_with(begin)) && !text.contains([' ', '/', '*']) {
        report.warn(
            span,
            format!("this compares with the text `{}`, not with that field", shorten(text)),
            "add the modifier `fieldref` to compare fields",
        );
    }
}

/// The same for `contains`, `startswith` and `endswith`.
fn contained_path(item: &Item, report: &mut Report) {
    use crate::rule::ast::Part;
    for test in &item.tests {
        if let Test::Text { pattern, .. } = &test.value
            && pattern.as_plain().is_none()
            && let [literal] =
                pattern.0.iter().filter_map(|part| if let Part::Literal(text) = part { Some(text) } else { None }).collect::<Vec<_>>()[..]
        {
            names_a_field(literal, test.span, report);
        }
    }
}

fn repeated_values(item: &Item, report: &mut Report) {
    let mut seen = HashSet::new();
    for test in &item.tests {
        if let Test::Text { pattern, cased } = &test.value {
            let text = pattern.to_string();
            if !seen.insert(if *cased { text.clone() } else { text.to_lowercase() }) {
                report.warn(test.span, format!("`{}` stands twice in this list", shorten(&text)), "remove one; letter case does not count");
            }
        }
    }
}

/// `%name%` without `expand` is plain text.
fn plain_placeholders(item: &Item, report: &mut Report) {
    for test in &item.tests {
        if let Test::Text { pattern, .. } = &test.value
            && let Some(text) = pattern.as_plain()
            && let Some(name) = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'))
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            report.warn(test.span, format!("`{text}` is compared as it is"), "add the modifier `expand` to fill the placeholder");
        }
    }
}

/// Facts about lines of one map together.
fn blocks(block: &Block, report: &mut Report) {
    let items = match block {
        Block::Any(inner) => return inner.iter().for_each(|block| blocks(block, report)),
        Block::All(items) => items,
    };
    let sources: Vec<&str> = literals(items, "eventSource").map(|(source, _)| source.trim_end_matches(".amazonaws.com")).collect();
    for (event, span) in literals(items, "eventName") {
        let says: Vec<_> = sources.iter().map(|source| facts::impossible_event(source, event)).collect();
        if let Some(Some(says)) = says.first().filter(|_| says.iter().all(Option::is_some)) {
            report.warn(span, format!("`{}` sends no `{}`", sources.join("`, `"), shorten(event)), *says);
        }
    }
    for item in items {
        let Target::Field(field) = &item.target else { continue };
        for (event, _) in literals(items, "eventName") {
            if let Some(says) = facts::absent_field(event, &field.value) {
                report.warn(field.span, format!("records of `{event}` have no `{}`", field.value), says);
            }
        }
        if sources.iter().any(|source| source.eq_ignore_ascii_case("rds"))
            && let Some(right) = facts::misspelt_rds_parameter(&field.value)
        {
            report.warn(field.span, format!("CloudTrail spells this parameter `{right}`"), "names are case-sensitive");
        }
    }
}

/// Values without wildcards that the field may have by these lines.
fn literals<'a>(items: &'a [Item], name: &'a str) -> impl Iterator<Item = (&'a str, Span)> {
    let lines = items.iter().filter(move |item| !item.negated && matches!(&item.target, Target::Field(field) if field.value == name));
    lines.flat_map(|item| &item.tests).filter_map(|test| match &test.value {
        Test::Text { pattern, .. } => Some((pattern.as_plain()?, test.span)),
        _ => None,
    })
}

fn obsolete(meta: &Meta, ids: &HashMap<&str, &Meta>, found: &mut Vec<Diagnostic>) {
    for (id, kind) in &meta.related {
        if matches!(kind.as_str(), "obsolete" | "obsoletes")
            && let Some(old) = ids.get(id.as_str())
        {
            let mut report = Report::new(old.file.clone());
            let message = format!("`{}` says that it replaces this rule", shorten(&meta.title.value));
            report.warn(old.title.span, message, "both are loaded and both alert; remove one");
            found.extend(report.found);
        }
    }
}

/// Whether a level asks for somebody's attention now.
fn is_urgent(level: Level) -> bool {
    level >= Level::High
}

/// The selections that a condition uses, as the rule names them.
fn name_of(selections: &[Selection], index: usize) -> &Spanned<String> {
    &selections[index].name
}

#[cfg(test)]
mod tests;
