//! One correlation or state to a node of its own.
//!
//! In: a correlation or a rule with state. Out: its node, not yet linked. Invariant: a node that comes out has a condition
//! that can be judged; everything else is a fault with its place.

use super::{
    Bound, By, Comparison, Correlation, CorrelationKind, Expression, Fault, HOUR_MS, Id, Kind, Meta, Node, Origin, Rule, Scope, Span, State, Values,
    digest, number,
};

/// More rules than this in one correlation are a mistake.
const MAX_RULES: usize = 256;

struct Shape {
    kind: Kind,
    values: Values,
    prompt: bool,
    /// Value fields, as part of the evidence's name.
    fields: Vec<String>,
}

pub(super) fn correlation(index: usize, source: &Correlation) -> Result<Node, Fault> {
    let fault = |span: Span, message: String| Fault { origin: Origin::Correlation(index), span, message };
    let here = source.meta.span;
    if source.rules.is_empty() || source.rules.len() > MAX_RULES {
        return Err(fault(here, format!("a correlation names 1 to {MAX_RULES} rules; this one names {}", source.rules.len())));
    }
    let span_ms = span(source.timespan_ms).ok_or_else(|| fault(here, "`timespan` must be at least 1s and at most 3650d".into()))?;
    let shape = shape(source).map_err(|message| fault(source.expression.as_ref().map_or(here, |e| e.span), message))?;
    let group_by: Vec<String> = source.group_by.iter().map(|g| g.value.clone()).collect();
    let mut fields = shape.fields.clone();
    for alias in &source.aliases {
        fields.extend(alias.fields.iter().map(|(rule, field)| format!("{}={}:{}", alias.name.value, rule.value, field.value)));
    }
    Ok(Node {
        origin: Origin::Correlation(index),
        rule: key(&source.meta),
        state: state(&source.meta, &shape.kind, source.rules.iter().map(|r| r.value.as_str()), &group_by, &fields, span_ms),
        meta: source.meta.clone(),
        scope: source.meta.ext.scope,
        group_by,
        timespan_ms: span_ms,
        cell_ms: span_ms.max(HOUR_MS),
        kind: shape.kind,
        values: shape.values,
        fields: shape.fields,
        rules: source.rules.len(),
        prompt: shape.prompt,
        depth: 0,
        parents: Vec::new(),
        alerts: true,
    })
}

/// The node of a rule that carries `trailwarden.state`, and the fields that feed it.
pub(super) fn state_rule(index: usize, rule: &Rule) -> Option<Result<Node, Fault>> {
    let source = rule.meta.ext.state.as_ref()?;
    let (kind, values, group_by, fields, span_ms) = match &source.value {
        State::NewValue { fields, group_by, memory_ms, learning_ms } => {
            (Kind::NewValue { learning_ms: (*learning_ms).min(MAX_SPAN_MS).cast_signed() }, Values::Tuple, group_by, texts(fields), *memory_ms)
        }
        State::ValueDrop { field, group_by, timespan_ms } => (Kind::Drop, Values::Number, group_by, vec![field.value.clone()], *timespan_ms),
        State::Absence { group_by, timespan_ms } => (Kind::Absence, Values::None, group_by, Vec::new(), *timespan_ms),
    };
    let Some(span_ms) = span(span_ms) else {
        let message = "a state's span must be at least 1s and at most 3650d".into();
        return Some(Err(Fault { origin: Origin::Rule(index), span: source.span, message }));
    };
    let group_by = texts(group_by);
    Some(Ok(Node {
        origin: Origin::Rule(index),
        rule: key(&rule.meta),
        state: state(&rule.meta, &kind, std::iter::empty(), &group_by, &fields, span_ms),
        meta: rule.meta.clone(),
        scope: rule.meta.ext.scope,
        group_by,
        timespan_ms: span_ms,
        cell_ms: if matches!(kind, Kind::Drop) { span_ms.max(HOUR_MS) } else { HOUR_MS },
        prompt: matches!(kind, Kind::Drop),
        kind,
        values,
        fields,
        rules: 1,
        depth: 0,
        parents: Vec::new(),
        alerts: true,
    }))
}

const MAX_SPAN_MS: u64 = 3650 * 24 * 3_600_000;

fn span(ms: u64) -> Option<i64> {
    (1000..=MAX_SPAN_MS).contains(&ms).then(|| ms.cast_signed())
}

fn texts(fields: &[crate::rule::ast::Spanned<String>]) -> Vec<String> {
    fields.iter().map(|f| f.value.clone()).collect()
}

/// What alert ids are made of.
pub(super) fn key(meta: &Meta) -> String {
    let named = meta.id.as_ref().or(meta.name.as_ref()).unwrap_or(&meta.title);
    named.value.clone()
}

/// A changed threshold or title keeps the evidence; another rule, group, field, span or kind does not.
fn state<'a>(meta: &Meta, kind: &Kind, rules: impl Iterator<Item = &'a str>, group_by: &[String], fields: &[String], span_ms: i64) -> Id {
    let list = |items: &mut dyn Iterator<Item = &str>| {
        items.fold(Vec::new(), |mut all, item| {
            crate::correlate::push_value(&mut all, Some(item));
            all
        })
    };
    let scope = [u8::from(meta.ext.scope == Scope::Organization)];
    digest(&[
        key(meta).as_bytes(),
        kind.name().as_bytes(),
        &scope,
        &list(&mut rules.into_iter()),
        &list(&mut group_by.iter().map(String::as_str)),
        &list(&mut fields.iter().map(String::as_str)),
        &span_ms.to_be_bytes(),
    ])
}

fn shape(source: &Correlation) -> Result<Shape, String> {
    let bounds: Vec<Bound> = source.bounds.iter().map(|(op, number)| Bound { op: *op, micros: number::micros(*number) }).collect();
    let lower = bounds.iter().all(Bound::is_lower);
    let need = |what: &str| if bounds.is_empty() { Err(format!("`{what}` needs a condition, such as `gte: 5`")) } else { Ok(()) };
    let of = |kind, values, prompt, fields| Ok(Shape { kind, values, prompt, fields });
    if source.expression.is_some() && !matches!(source.kind, CorrelationKind::Temporal | CorrelationKind::TemporalOrdered) {
        return Err("only temporal correlations take a condition over rule names".into());
    }
    match &source.kind {
        CorrelationKind::EventCount => {
            need("event_count")?;
            of(Kind::Distinct { by: By::Identity, bounds }, Values::None, lower, vec![])
        }
        CorrelationKind::ValueCount { fields } => {
            need("value_count")?;
            of(Kind::Distinct { by: By::Value, bounds }, Values::Tuple, lower, texts(fields))
        }
        CorrelationKind::Temporal => temporal(source, bounds, lower),
        CorrelationKind::TemporalOrdered => ordered(source, &bounds),
        CorrelationKind::ValueSum { field } => {
            need("value_sum")?;
            of(Kind::Sum { bounds }, Values::Number, lower, vec![field.value.clone()])
        }
        CorrelationKind::ValueAvg { field } => {
            need("value_avg")?;
            of(Kind::Average { bounds }, Values::Number, false, vec![field.value.clone()])
        }
        CorrelationKind::ValuePercentile { field, percentile } => {
            need("value_percentile")?;
            if !(*percentile > 0.0 && *percentile <= 100.0) {
                return Err("`percentile` must be above 0 and at most 100".into());
            }
            let percent_micros = number::micros(*percentile).max(1);
            of(Kind::Percentile { percent_micros, bounds }, Values::Number, false, vec![field.value.clone()])
        }
    }
}

fn temporal(source: &Correlation, bounds: Vec<Bound>, lower: bool) -> Result<Shape, String> {
    let of = |kind, prompt| Ok(Shape { kind, values: Values::None, prompt, fields: vec![] });
    match &source.expression {
        Some(_) if !bounds.is_empty() => Err("a condition is either a number of rules or an expression over them".into()),
        Some(expression) => {
            let prompt = !negates(&expression.value);
            of(Kind::Expression { expression: expression.value.clone() }, prompt)
        }
        None if bounds.is_empty() => {
            let all = Bound { op: Comparison::Gte, micros: source.rules.len() as i128 * 1_000_000 };
            of(Kind::Distinct { by: By::Rule, bounds: vec![all] }, true)
        }
        None => of(Kind::Distinct { by: By::Rule, bounds }, lower),
    }
}

fn ordered(source: &Correlation, bounds: &[Bound]) -> Result<Shape, String> {
    let all = Bound { op: Comparison::Gte, micros: source.rules.len() as i128 * 1_000_000 };
    if bounds.iter().any(|b| *b != all) {
        return Err(format!("an order is of all its rules: leave the condition out, or write `gte: {}`", source.rules.len()));
    }
    let expression = match &source.expression {
        Some(expression) if negates(&expression.value) => return Err("`not` has no place in an order; use `temporal`".into()),
        Some(expression) => expression.value.clone(),
        None => Expression::And((0..source.rules.len()).map(Expression::Rule).collect()),
    };
    Ok(Shape { kind: Kind::Ordered { expression }, values: Values::None, prompt: true, fields: vec![] })
}

fn negates(expression: &Expression) -> bool {
    match expression {
        Expression::Rule(_) => false,
        Expression::Not(_) => true,
        Expression::And(parts) | Expression::Or(parts) => parts.iter().any(negates),
    }
}
