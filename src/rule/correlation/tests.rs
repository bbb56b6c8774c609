//! Golden tables of correlations and their errors.

use super::*;
use crate::rule::{ast::Document, modifier::Lists, sigma};

fn read(body: &str) -> (Option<Correlation>, Vec<String>) {
    let text = format!("title: t\ncorrelation: {body}\n");
    let parsed = sigma::parse(&"x.yml".into(), &text, &Lists::default());
    let show = |found: &crate::rule::diagnostic::Diagnostic| {
        let piece = &text[found.span.start as usize..found.span.end as usize];
        format!("{} [{piece}] {}", found.message, found.hint.clone().unwrap_or_default())
    };
    let correlation = parsed.documents.into_iter().next().map(|document| match document {
        Document::Correlation(correlation) => correlation,
        other => panic!("{other:?}"),
    });
    (correlation, parsed.diagnostics.iter().map(show).collect())
}

fn show(correlation: &Correlation) -> String {
    let names = |fields: &[Spanned<String>]| fields.iter().map(|field| field.value.as_str()).collect::<Vec<_>>().join(",");
    let kind = match &correlation.kind {
        CorrelationKind::ValueCount { fields } => format!("count({})", names(fields)),
        CorrelationKind::ValueSum { field } => format!("sum({})", field.value),
        CorrelationKind::ValueAvg { field } => format!("avg({})", field.value),
        CorrelationKind::ValuePercentile { field, percentile } => format!("p{percentile}({})", field.value),
        plain => format!("{plain:?}"),
    };
    let bounds: Vec<_> = correlation.bounds.iter().map(|(op, number)| format!("{op:?} {number}")).collect();
    let expression = correlation.expression.as_ref().map(|found| format!(" {:?}", found.value)).unwrap_or_default();
    format!(
        "{kind} of {} by {} in {} s: {}{expression}",
        names(&correlation.rules),
        names(&correlation.group_by),
        correlation.timespan_ms / 1000,
        bounds.join(" ")
    )
}

#[test]
fn correlations_mean() {
    for (body, expected) in [
        ("{type: event_count, rules: a, timespan: 10m, condition: {gte: 5}}", "EventCount of a by  in 600 s: Gte 5"),
        (
            "{type: event_count, rules: [a, b], group-by: [x, y.z], timespan: 1h, condition: {gt: 1, lte: 9}}",
            "EventCount of a,b by x,y.z in 3600 s: Gt 1 Lte 9",
        ),
        ("{type: event_count, rules: a, group-by: x, timespan: 2d, condition: {neq: 3}}", "EventCount of a by x in 172800 s: Neq 3"),
        ("{type: value_count, rules: a, timespan: 90s, condition: {gte: 5, field: u}}", "count(u) of a by  in 90 s: Gte 5"),
        ("{type: value_count, rules: a, timespan: 1w, condition: {field: [u, v], eq: 5}}", "count(u,v) of a by  in 604800 s: Eq 5"),
        ("{type: value_sum, rules: a, timespan: 1h, condition: {gt: 1.5, field: n}}", "sum(n) of a by  in 3600 s: Gt 1.5"),
        ("{type: value_avg, rules: a, timespan: 1h, condition: {lt: -1, field: n}}", "avg(n) of a by  in 3600 s: Lt -1"),
        ("{type: value_percentile, rules: a, timespan: 1h, condition: {gte: 9, field: n, percentile: 95}}", "p95(n) of a by  in 3600 s: Gte 9"),
        ("{type: value_median, rules: a, timespan: 1h, condition: {gte: 9, field: n}}", "p50(n) of a by  in 3600 s: Gte 9"),
        ("{type: temporal, rules: [a, b], timespan: 1h}", "Temporal of a,b by  in 3600 s: "),
        ("{type: temporal, rules: [a, b, c], timespan: 1h, condition: {gte: 2}}", "Temporal of a,b,c by  in 3600 s: Gte 2"),
        ("{type: temporal_ordered, rules: [a, b], timespan: 1h}", "TemporalOrdered of a,b by  in 3600 s: "),
        ("{type: temporal, rules: [a, b], timespan: 1h, condition: a AND b}", "Temporal of a,b by  in 3600 s: "),
        ("{type: temporal_ordered, rules: [a, b], timespan: 1h, condition: a and b}", "TemporalOrdered of a,b by  in 3600 s: "),
        (
            "{type: temporal, rules: [a, b, c], timespan: 1h, condition: (a or b) and not c}",
            "Temporal of a,b,c by  in 3600 s:  And([Or([Rule(0), Rule(1)]), Not(Rule(2))])",
        ),
        (
            "{type: temporal_ordered, rules: [a, b, c], timespan: 1h, condition: (a or b) and c}",
            "TemporalOrdered of a,b,c by  in 3600 s:  And([Or([Rule(0), Rule(1)]), Rule(2)])",
        ),
        ("{type: temporal_ordered, rules: [a, a], timespan: 1h}", "TemporalOrdered of a,a by  in 3600 s: "),
        ("{type: temporal, timespan: 1h, condition: a and not b}", "Temporal of a,b by  in 3600 s:  And([Rule(0), Not(Rule(1))])"),
    ] {
        let (correlation, found) = read(body);
        assert!(found.is_empty(), "{body}: {found:?}");
        assert_eq!(show(&correlation.unwrap()), expected, "{body}");
    }
}

#[test]
fn aliases_and_generate() {
    let (correlation, found) = read("{type: temporal, rules: [a, b], group-by: ip, timespan: 1h, generate: true, aliases: {ip: {a: src, b: dst}}}");
    assert!(found.is_empty(), "{found:?}");
    let correlation = correlation.unwrap();
    assert!(correlation.generate);
    let fields: Vec<_> = correlation.aliases[0].fields.iter().map(|(rule, field)| (rule.value.as_str(), field.value.as_str())).collect();
    assert_eq!(fields, [("a", "src"), ("b", "dst")]);
}

#[test]
fn errors_point_and_hint() {
    for (body, parts) in [
        (
            "{type: event_cont, rules: a, timespan: 1h, condition: {gte: 5}}",
            ["unknown correlation type `event_cont`", "[event_cont]", "`event_count`"],
        ),
        ("{rules: a, timespan: 1h, condition: {gte: 5}}", ["needs its type", "[]", "value_count"]),
        ("{type: event_count, rules: a, timeframe: 1h, timespan: 1h, condition: {gte: 5}}", ["unknown key", "[timeframe]", "timespan"]),
        ("{type: event_count, rules: a, condition: {gte: 5}}", ["no timespan", "[]", "1h"]),
        ("{type: event_count, rules: a, timespan: 1, condition: {gte: 5}}", ["is no duration", "[1]", "15m"]),
        ("{type: event_count, rules: a, timespan: 0h, condition: {gte: 5}}", ["is no duration", "[0h]", "above 0"]),
        ("{type: event_count, rules: a, timespan: 1M, condition: {gte: 5}}", ["is no duration", "[1M]", "7d"]),
        ("{type: event_count, rules: a, timespan: 99999d, condition: {gte: 5}}", ["ten years", "[99999d]", "shorter"]),
        ("{type: event_count, rules: a, timespan: 1h}", ["needs a condition", "[]", "gte"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: {}}", ["compares with nothing", "[{", "gte"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: {get: 5}}", ["unknown key of the condition `get`", "[get]", "did you mean"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: {gte: 1.5}}", ["whole number", "[1.5]", "quotes"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: {gte: '5'}}", ["whole number", "['5']", "quotes"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: a and b}", ["only temporal", "[a and b]", "gte"]),
        ("{type: event_count, rules: a, timespan: 1h, condition: {gte: 5, field: x}}", ["not a field's values", "[x]", "value_count"]),
        ("{type: event_count, timespan: 1h, condition: {gte: 5}}", ["needs `rules`", "[]", "ids or names"]),
        ("{type: event_count, rules: [a, a], timespan: 1h, condition: {gte: 5}}", ["stands twice", "[a]", "remove"]),
        ("{type: value_count, rules: a, timespan: 1h, condition: {gte: 5}}", ["needs `field`", "[{", "values count"]),
        ("{type: value_sum, rules: a, timespan: 1h, condition: {gte: 5, field: [x, y]}}", ["takes one field", "[{", "values count"]),
        ("{type: value_percentile, rules: a, timespan: 1h, condition: {gte: 5, field: x, percentile: 101}}", ["0 to 100", "[101]", "quotes"]),
        ("{type: temporal_ordered, rules: [a, b], timespan: 1h, condition: a and not b}", ["no place in an order", "[a and not b]", "temporal"]),
        ("{type: temporal, rules: [a, b], timespan: 1h, condition: a or x}", ["unknown rule `x`", "[x]", "known: a, b"]),
        ("{type: temporal, rules: [a, b, c], timespan: 1h, condition: a or b}", ["not in the condition", "[c]", "remove"]),
        (
            "{type: temporal, rules: [a, b], group-by: i, timespan: 1h, aliases: {i: {a: x, b: y, other: z}}}",
            ["unknown rule `other`", "[other]", "known"],
        ),
        ("{type: event_count, rules: a, timespan: 1h, condition: {gte: 5}, generate: 'yes'}", ["true or false", "['yes']", "quotes"]),
        ("[]", ["must be a map", "[[]]", "keys"]),
    ] {
        let (correlation, found) = read(body);
        assert!(correlation.is_none(), "{body}");
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert!(parts.iter().all(|part| found[0].contains(part)), "{body}: {found:?}");
    }
}

#[test]
fn warnings_point_and_hint() {
    for (body, expected) in [
        ("{type: event_count, rules: a, timespan: 1h, condition: {gte: 5, lt: 5}}", "no number is in this range"),
        ("{type: temporal, rules: [a, b], timespan: 1h, condition: {gte: 3}}", "only 2 rules"),
        ("{type: value_percentile, rules: a, timespan: 1h, condition: {gte: 5, field: x}}", "median"),
        ("{type: temporal, rules: [a, b], group-by: i, timespan: 1h, aliases: {i: {a: x}}}", "no field for rule `b`"),
        ("{type: temporal, rules: [a, b], timespan: 1h, aliases: {i: {a: x, b: y}}}", "not in `group-by`"),
    ] {
        let (correlation, found) = read(body);
        assert!(correlation.is_some(), "{body}: {found:?}");
        assert!(found.len() == 1 && found[0].contains(expected), "{body}: {found:?}");
    }
}
