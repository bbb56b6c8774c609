//! Documents of all files to one set.
//!
//! In: well-formed documents. Out: `RuleSet` (without sources). Invariant: see `load`; a document whose references can't be
//! followed is left out with an error.

use std::collections::{HashMap, HashSet};

use crate::rule::{
    ast::{Condition, Correlation, Document, Filter, LogSource, Meta, Profile, Rule, Spanned},
    diagnostic::{Diagnostic, Report, nearest, shorten},
    load::{LinkedCorrelation, LinkedRule, Reference, Role, RuleSet, report_for},
    sigma::Parsed,
};

#[derive(Default)]
pub(in crate::rule) struct Documents {
    /// With the number of the input that they come from.
    pub rules: Vec<(usize, Rule)>,
    pub correlations: Vec<(usize, Correlation)>,
    pub filters: Vec<Filter>,
    /// Ids and names of documents that had errors.
    pub refused: Vec<String>,
}

impl Documents {
    pub fn add(&mut self, input: usize, file: Parsed, diagnostics: &mut Vec<Diagnostic>) {
        diagnostics.extend(file.diagnostics);
        self.refused.extend(file.refused);
        for document in file.documents {
            match document {
                Document::Rule(rule) => self.rules.push((input, rule)),
                Document::Correlation(correlation) => self.correlations.push((input, correlation)),
                Document::Filter(filter) => self.filters.push(filter),
            }
        }
    }
}

pub(in crate::rule) fn link(mut documents: Documents, profile: Profile, diagnostics: &mut Vec<Diagnostic>) -> RuleSet {
    replace_and_tell_apart(&mut documents, diagnostics);
    let rules: Vec<Rule> = documents.rules.into_iter().map(|(_, rule)| rule).collect();
    let correlations: Vec<Correlation> = documents.correlations.into_iter().map(|(_, correlation)| correlation).collect();
    let names = Names::new(rules.iter().map(|rule| &rule.meta), correlations.iter().map(|found| &found.meta), documents.refused);
    let (order, mut children) = order(&correlations, &names, diagnostics);
    let position: HashMap<usize, usize> = order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    let mut correlations: Vec<Option<Correlation>> = correlations.into_iter().map(Some).collect();
    let mut set =
        RuleSet { rules: rules.into_iter().map(|rule| LinkedRule { rule, role: Role { runs: true, alerts: true } }).collect(), ..Default::default() };
    for old in order {
        let renumbered = |child| match child {
            Reference::Correlation(old) => Reference::Correlation(position[&old]),
            rule => rule,
        };
        let children = std::mem::take(&mut children[old]).into_iter().map(renumbered).collect();
        let correlation = correlations[old].take().expect("each index stands once in the order");
        set.correlations.push(LinkedCorrelation { correlation, children, role: Role { runs: true, alerts: true } });
    }
    for filter in &documents.filters {
        apply(filter, &mut set.rules, &names, diagnostics);
    }
    set.filters = documents.filters;
    assign_roles(&mut set, profile);
    set
}

/// A later input's rule replaces an earlier one's; within one input both stay, told apart by a suffix, with a warning.
fn replace_and_tell_apart(documents: &mut Documents, diagnostics: &mut Vec<Diagnostic>) {
    let metas = |documents: &Documents| -> Vec<(usize, Meta)> {
        let rules = documents.rules.iter().map(|(input, rule)| (*input, rule.meta.clone()));
        rules.chain(documents.correlations.iter().map(|(input, correlation)| (*input, correlation.meta.clone()))).collect()
    };
    let mut last_input: HashMap<String, usize> = HashMap::new();
    for (input, meta) in metas(documents) {
        let last = last_input.entry(meta.key().to_owned()).or_insert(input);
        *last = input.max(*last);
    }
    documents.rules.retain(|(input, rule)| last_input[rule.meta.key()] == *input);
    documents.correlations.retain(|(input, correlation)| last_input[correlation.meta.key()] == *input);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let all = documents.rules.iter_mut().map(|(_, rule)| &mut rule.meta);
    for meta in all.chain(documents.correlations.iter_mut().map(|(_, correlation)| &mut correlation.meta)) {
        let count = seen.entry(meta.key().to_owned()).or_insert(0);
        *count += 1;
        if *count > 1 {
            let span = meta.id.as_ref().map_or(meta.title.span, |id| id.span);
            let message = format!("another rule has the id `{}` too", shorten(meta.key()));
            report_for(&meta.file, diagnostics, |report| {
                report.warn(span, message, format!("its alerts are told apart as `…#{count}`; give it its own id"))
            });
            meta.id = Some(Spanned { value: format!("{}#{count}", meta.key()), span });
        }
    }
}

/// What references can name.
struct Names {
    by_id: HashMap<String, Reference>,
    /// With the file, in which a name is looked for first.
    by_name: HashMap<String, Vec<(std::sync::Arc<str>, Reference)>>,
    refused: HashSet<String>,
}

enum Found {
    One(Reference),
    Several,
    None,
    /// Its document had errors, which were told.
    Refused,
}

impl Names {
    fn new<'a>(rules: impl Iterator<Item = &'a Meta>, correlations: impl Iterator<Item = &'a Meta>, refused: Vec<String>) -> Self {
        let mut names = Self { by_id: HashMap::new(), by_name: HashMap::new(), refused: refused.into_iter().collect() };
        let rules = rules.enumerate().map(|(index, meta)| (Reference::Rule(index), meta));
        for (reference, meta) in rules.chain(correlations.enumerate().map(|(index, meta)| (Reference::Correlation(index), meta))) {
            if let Some(id) = &meta.id {
                names.by_id.entry(id.value.clone()).or_insert(reference);
            }
            if let Some(name) = &meta.name {
                names.by_name.entry(name.value.clone()).or_default().push((meta.file.clone(), reference));
            }
        }
        names
    }

    fn find(&self, name: &str, file: &str) -> Found {
        if let Some(reference) = self.by_id.get(name) {
            return Found::One(*reference);
        }
        let named = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let near: Vec<_> = named.iter().filter(|(place, _)| &**place == file).collect();
        match (near.as_slice(), named) {
            ([(_, one)], _) | ([], [(_, one)]) => Found::One(*one),
            ([], []) if self.refused.contains(name) => Found::Refused,
            ([], []) => Found::None,
            _ => Found::Several,
        }
    }

    fn tell_missing(&self, name: &Spanned<String>, report: &mut Report) {
        let known = self.by_id.keys().chain(self.by_name.keys()).map(String::as_str);
        let hint = match nearest(&name.value, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "load its file too: `--rules` can be given several times, and `--rules builtin` adds the built-in detectors".into(),
        };
        report.error_hint(name.span, format!("no rule has the id or name `{}`", shorten(&name.value)), hint);
    }
}

/// Indexes of the sound correlations, children first, and the references of all.
fn order(correlations: &[Correlation], names: &Names, diagnostics: &mut Vec<Diagnostic>) -> (Vec<usize>, Vec<Vec<Reference>>) {
    let mut children = Vec::with_capacity(correlations.len());
    let mut sound = vec![true; correlations.len()];
    for (index, correlation) in correlations.iter().enumerate() {
        let mut references = Vec::new();
        report_for(&correlation.meta.file, diagnostics, |report| {
            for name in &correlation.rules {
                match names.find(&name.value, &correlation.meta.file) {
                    Found::One(reference) => references.push(reference),
                    Found::Refused => sound[index] = false,
                    Found::None => {
                        sound[index] = false;
                        names.tell_missing(name, report);
                    }
                    Found::Several => {
                        sound[index] = false;
                        report.error_hint(
                            name.span,
                            format!("several rules have the name `{}`", shorten(&name.value)),
                            "refer to the rule by its id",
                        );
                    }
                }
            }
        });
        children.push(references);
    }
    let mut order = Vec::new();
    let mut placed = vec![false; correlations.len()];
    loop {
        let ready = |index: &usize| {
            sound[*index]
                && !placed[*index]
                && children[*index].iter().all(|child| !matches!(child, Reference::Correlation(child) if !placed[*child]))
        };
        let Some(next) = (0..correlations.len()).find(ready) else { break };
        placed[next] = true;
        order.push(next);
    }
    for index in (0..correlations.len()).filter(|index| sound[*index] && !placed[*index]) {
        let correlation = &correlations[index];
        let broken = children[index].iter().any(|child| matches!(child, Reference::Correlation(child) if !sound[*child]));
        if !broken {
            report_for(&correlation.meta.file, diagnostics, |report| {
                let span = correlation.rules.first().map_or(correlation.meta.span, |rule| rule.span);
                report.error_hint(span, "the correlation refers to itself, through its rules", "break the circle");
            });
        }
    }
    (order, children)
}

/// Joins the filter to every rule that it names.
fn apply(filter: &Filter, rules: &mut [LinkedRule], names: &Names, diagnostics: &mut Vec<Diagnostic>) {
    let Some(targets) = &filter.rules else {
        rules.iter_mut().filter(|linked| covers(&filter.logsource, &linked.rule.logsource)).for_each(|linked| join(filter, &mut linked.rule));
        return;
    };
    report_for(&filter.file, diagnostics, |report| {
        for name in targets {
            match names.find(&name.value, &filter.file) {
                Found::One(Reference::Rule(index)) => {
                    let rule = &mut rules[index].rule;
                    if covers(&filter.logsource, &rule.logsource) {
                        join(filter, rule);
                    } else {
                        report.warn(
                            name.span,
                            "this rule has another logsource: the filter does not apply to it",
                            "make the filter's logsource the same",
                        );
                    }
                }
                Found::One(Reference::Correlation(_)) => {
                    report.error_hint(name.span, "a filter applies to rules, this is a correlation", "name the rules of the correlation");
                }
                Found::Several => {
                    report.error_hint(name.span, format!("several rules have the name `{}`", shorten(&name.value)), "refer to the rule by its id")
                }
                Found::None => names.tell_missing(name, report),
                Found::Refused => {}
            }
        }
    });
}

/// Every part that the filter names is the same in the rule.
fn covers(filter: &LogSource, rule: &LogSource) -> bool {
    let same = |filter: &Option<Spanned<String>>, rule: &Option<Spanned<String>>| match (filter, rule) {
        (None, _) => true,
        (Some(filter), Some(rule)) => filter.value == rule.value,
        (Some(_), None) => false,
    };
    same(&filter.category, &rule.category) && same(&filter.product, &rule.product) && same(&filter.service, &rule.service)
}

/// `(rule) and (filter)`.
fn join(filter: &Filter, rule: &mut Rule) {
    let base = rule.selections.len();
    rule.selections.extend(filter.selections.iter().cloned());
    let added = shifted(&filter.condition.value, base);
    for condition in &mut rule.conditions {
        let own = std::mem::replace(&mut condition.value, Condition::And(Vec::new()));
        condition.value = Condition::And(vec![own, added.clone()]);
    }
}

fn shifted(condition: &Condition, by: usize) -> Condition {
    match condition {
        Condition::Selection(index) => Condition::Selection(index + by),
        Condition::Not(inner) => Condition::Not(Box::new(shifted(inner, by))),
        Condition::And(parts) => Condition::And(parts.iter().map(|part| shifted(part, by)).collect()),
        Condition::Or(parts) => Condition::Or(parts.iter().map(|part| shifted(part, by)).collect()),
    }
}

fn assign_roles(set: &mut RuleSet, profile: Profile) {
    let mut rules: Vec<Role> = set.rules.iter().map(|linked| own_role(&linked.rule.meta, profile)).collect();
    let mut correlations: Vec<Role> = set.correlations.iter().map(|linked| own_role(&linked.correlation.meta, profile)).collect();
    // Parents come after their children: from the back, each knows its own role before its children ask.
    for (index, linked) in set.correlations.iter().enumerate().rev() {
        let parent = correlations[index];
        if !parent.runs {
            continue;
        }
        for child in &linked.children {
            let role = match child {
                Reference::Rule(child) => &mut rules[*child],
                Reference::Correlation(child) => &mut correlations[*child],
            };
            role.runs = true;
        }
    }
    let mut fed: HashSet<Reference> = HashSet::new();
    let mut generated: HashSet<Reference> = HashSet::new();
    for (linked, role) in set.correlations.iter().zip(&correlations) {
        let group = if linked.correlation.generate { &mut generated } else { &mut fed };
        group.extend(linked.children.iter().filter(|_| role.runs));
    }
    let only_feeds = |reference: Reference| fed.contains(&reference) && !generated.contains(&reference);
    rules.iter_mut().enumerate().for_each(|(index, role)| role.alerts &= !only_feeds(Reference::Rule(index)));
    correlations.iter_mut().enumerate().for_each(|(index, role)| role.alerts &= !only_feeds(Reference::Correlation(index)));
    set.rules.iter_mut().zip(rules).for_each(|(linked, role)| linked.role = role);
    set.correlations.iter_mut().zip(correlations).for_each(|(linked, role)| linked.role = role);
}

/// A rule of a louder profile is silent, and runs only if something needs it.
fn own_role(meta: &Meta, profile: Profile) -> Role {
    let wanted = meta.ext.profile <= profile;
    Role { runs: wanted, alerts: wanted }
}
