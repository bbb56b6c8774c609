//! The `detection` part of a document: named selections and the condition over them.
//!
//! In: the mapping under `detection` (or `filter`). Out: `Selection`s and conditions. Invariant: maps are AND, lists are OR,
//! and every condition's indexes point into the selections that are returned with it.

use crate::rule::{
    ast::{Block, Condition, Item, Selection, Spanned, Target, Test},
    condition,
    diagnostic::Report,
    modifier::{Key, Lists, Values},
    yaml::{Kind, Node},
};

pub(in crate::rule) struct Detection {
    pub selections: Vec<Selection>,
    pub conditions: Vec<Spanned<Condition>>,
}

/// Reads `node`; keys in `reserved` are the caller's. Errors have been reported when this is `None`.
pub(in crate::rule) fn parse(node: &Node, reserved: &[&str], lists: &Lists, report: &mut Report) -> Option<Detection> {
    let Some(entries) = node.entries() else {
        report.error_hint(
            node.span,
            format!("this must be a map of selections and a condition, not {}", node.what()),
            "write `selection:` and `condition:`",
        );
        return None;
    };
    let before = report.error_count();
    let mut selections = Vec::new();
    let mut condition = None;
    for (key, value) in entries {
        match key.text().unwrap_or_default() {
            "condition" => condition = Some(value),
            "timeframe" => report.error_hint(
                key.span,
                "`timeframe` is gone from Sigma 2",
                "count or order matches with a correlation document, which has a `timespan`",
            ),
            name if reserved.contains(&name) => {}
            name => {
                let body = block(value, lists, report);
                let name = Spanned { value: name.to_owned(), span: key.span };
                // A selection with an error still counts as a name, so that the condition draws no second error.
                selections.push(Selection { name, file: report.file.clone(), body: body.unwrap_or(Block::Any(Vec::new())) });
            }
        }
    }
    if selections.is_empty() {
        report.error_hint(node.span, "there is no selection", "add one, as in `selection: {eventName: DeleteDBInstance}`");
    }
    let Some(condition) = condition else {
        report.error_hint(node.span, "there is no condition", "add `condition: selection`");
        return None;
    };
    let conditions = conditions(condition, &selections, report);
    (report.error_count() == before).then_some(Detection { selections, conditions })
}

fn conditions(node: &Node, selections: &[Selection], report: &mut Report) -> Vec<Spanned<Condition>> {
    let names: Vec<&str> = selections.iter().map(|selection| selection.name.value.as_str()).collect();
    match &node.kind {
        Kind::Sequence(items) if items.is_empty() => {
            report.error(node.span, "an empty list of conditions never matches");
            Vec::new()
        }
        Kind::Sequence(items) => items.iter().filter_map(|item| condition::parse(item, &names, "selection", report)).collect(),
        _ => condition::parse(node, &names, "selection", report).into_iter().collect(),
    }
}

/// A selection's body, or that of `field[any]`.
fn block(node: &Node, lists: &Lists, report: &mut Report) -> Option<Block> {
    match &node.kind {
        Kind::Mapping(entries) if entries.is_empty() => {
            report.error_hint(node.span, "an empty map would match every event", "name a field");
            None
        }
        Kind::Mapping(entries) => {
            let items: Vec<_> = entries.iter().map(|(key, value)| items(key, value, lists, report)).collect();
            Some(Block::All(items.into_iter().collect::<Option<Vec<_>>>()?.concat()))
        }
        Kind::Sequence(entries) if entries.is_empty() => {
            report.error_hint(node.span, "an empty list matches nothing", "list maps or keywords");
            None
        }
        Kind::Sequence(entries) => any(entries, lists, report),
        Kind::Scalar { .. } => any(std::slice::from_ref(node), lists, report),
    }
}

/// A list: maps are alternatives; neighbouring keywords share one item.
fn any(entries: &[Node], lists: &Lists, report: &mut Report) -> Option<Block> {
    let mut blocks = Vec::new();
    let mut complete = true;
    for run in entries.chunk_by(|left, right| matches!((&left.kind, &right.kind), (Kind::Scalar { .. }, Kind::Scalar { .. }))) {
        match &run[0].kind {
            Kind::Scalar { .. } => match keywords(run, lists, report) {
                Some(item) => blocks.push(Block::All(vec![item])),
                None => complete = false,
            },
            Kind::Mapping(_) => match block(&run[0], lists, report) {
                Some(block) => blocks.push(block),
                None => complete = false,
            },
            Kind::Sequence(_) => {
                report.error_hint(run[0].span, "a list in a list means nothing", "write one flat list");
                complete = false;
            }
        }
    }
    complete.then(|| if blocks.len() == 1 { blocks.remove(0) } else { Block::Any(blocks) })
}

fn keywords(nodes: &[Node], lists: &Lists, report: &mut Report) -> Option<Item> {
    let span = crate::rule::ast::Span { start: nodes[0].span.start, end: nodes[nodes.len() - 1].span.end };
    let empty = Node { span, kind: Kind::Scalar { text: String::new(), plain: false } };
    let key = Key::parse(&empty, report)?;
    let values = key.values(&Node { span, kind: Kind::Sequence(nodes.to_vec()) }, lists, report)?;
    Some(Item { target: Target::Keyword, tests: values.groups.concat(), all: false, negated: false, span })
}

/// One line of a map. It becomes several items where `|all` meets values that stand for several tests each.
fn items(key: &Node, value: &Node, lists: &Lists, report: &mut Report) -> Option<Vec<Item>> {
    let parsed = Key::parse(key, report)?;
    let target = match &parsed.field {
        Some(field) => Target::Field(field.clone()),
        None => Target::Keyword,
    };
    let span = crate::rule::ast::Span { start: key.span.start, end: value.span.end.max(key.span.end) };
    if let Some(every) = parsed.every {
        if !matches!(value.kind, Kind::Mapping(_) | Kind::Sequence(_)) {
            report.error_hint(value.span, "`[any]` and `[all]` need a map of the object's fields", "write `field[any]: {inner: value}`");
            return None;
        }
        let block = block(value, lists, report)?;
        if has_keyword(&block) {
            report.error_hint(value.span, "keywords have no place inside one object", "name the object's fields");
            return None;
        }
        let test = Spanned { value: Test::Element { every, block }, span: value.span };
        return Some(vec![Item { target, tests: vec![test], all: false, negated: false, span }]);
    }
    let Values { groups } = parsed.values(value, lists, report)?;
    let item = |tests, all| Item { target: target.clone(), tests, all, negated: parsed.negated, span };
    if !parsed.all || groups.len() == 1 {
        return Some(vec![item(groups.concat(), false)]);
    }
    if groups.iter().all(|group| group.len() == 1) {
        return Some(vec![item(groups.concat(), true)]);
    }
    if parsed.negated {
        report.error_hint(
            key.span,
            "`neq` with `all` over values that stand for several each can't be said in one key",
            "write a selection and `not` in the condition",
        );
        return None;
    }
    Some(groups.into_iter().map(|group| item(group, false)).collect())
}

fn has_keyword(block: &Block) -> bool {
    match block {
        Block::All(items) => items.iter().any(|item| item.target == Target::Keyword),
        Block::Any(blocks) => blocks.iter().any(has_keyword),
    }
}

#[cfg(test)]
mod tests;
