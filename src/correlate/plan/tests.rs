//! Graphs from small rule sets, and what is refused.
use super::*;
use crate::rule::ast::{Alias, Extension, Level, LogSource, Spanned};

pub(crate) fn at<T>(value: T) -> Spanned<T> {
    Spanned { value, span: Span::default() }
}

pub(crate) fn meta(id: &str) -> Meta {
    Meta {
        id: Some(at(id.into())),
        name: Some(at(format!("{id}_name"))),
        title: at(id.into()),
        status: None,
        level: Level::High,
        tags: vec![],
        description: String::new(),
        author: String::new(),
        date: None,
        modified: None,
        references: vec![],
        false_positives: vec![],
        related: vec![],
        ext: Extension::default(),
        file: Default::default(),
        span: Span::default(),
    }
}

pub(crate) fn rule(id: &str) -> Rule {
    Rule { meta: meta(id), logsource: LogSource::default(), selections: vec![], conditions: vec![] }
}

pub(crate) fn correlation(id: &str, kind: CorrelationKind, rules: &[&str], group_by: &[&str]) -> Correlation {
    Correlation {
        meta: meta(id),
        kind,
        rules: rules.iter().map(|r| at((*r).to_owned())).collect(),
        group_by: group_by.iter().map(|g| at((*g).to_owned())).collect(),
        aliases: vec![],
        timespan_ms: 60_000,
        bounds: vec![(Comparison::Gte, 2.0)],
        expression: None,
        generate: false,
    }
}

#[test]
fn feeds_name_fields_behind_aliases() {
    let mut c = correlation("c", CorrelationKind::ValueCount { fields: vec![at("v".into())] }, &["a", "b_name"], &["user"]);
    c.aliases = vec![Alias { name: at("user".into()), fields: vec![(at("b".into()), at("requestParameters.userName".into()))] }];
    let plan = Plan::compile(&[rule("a"), rule("b"), rule("z")], &[c]).unwrap();
    let feed = |rule: usize| plan.feeds(rule).iter().map(|f| (f.id.0, f.tag, f.group_by.join(","), f.values.join(","))).collect::<Vec<_>>();
    assert_eq!(feed(0), [(0, 0, "user".into(), "v".into())]);
    assert_eq!(feed(1), [(1, 1, "requestParameters.userName".into(), "v".into())]);
    assert_eq!((feed(2), plan.alerts(0), plan.alerts(2)), (vec![], false, true));
    assert_eq!(plan.feed(FeedId(1)), Some(&plan.feeds(1)[0]));
    assert!(plan.nodes[0].prompt && plan.nodes[0].alerts);
}

#[test]
fn generate_lets_the_rules_alert_too() {
    let quiet = correlation("c", CorrelationKind::EventCount, &["a"], &[]);
    let mut loud = correlation("d", CorrelationKind::EventCount, &["a", "c"], &[]);
    loud.generate = true;
    let plan = Plan::compile(&[rule("a")], &[&quiet, &loud]).unwrap();
    assert!(plan.alerts(0) && plan.nodes[0].alerts);
    loud.generate = false;
    let plan = Plan::compile(&[rule("a")], &[&quiet, &loud]).unwrap();
    assert!(!plan.alerts(0) && !plan.nodes[0].alerts && plan.nodes[1].alerts);
    assert_eq!(plan.nodes[0].parents, [Parent { node: 1, tag: 1, group_by: vec![], values: vec![] }]);
}

#[test]
fn a_state_takes_the_place_of_its_rule() {
    let mut first = rule("a");
    first.meta.ext.state = Some(at(State::Absence { group_by: vec![at("g".into())], timespan_ms: 5000 }));
    let c = correlation("c", CorrelationKind::Temporal, &["a", "b"], &["g"]);
    let plan = Plan::compile(&[first, rule("b")], &[c]).unwrap();
    assert_eq!(plan.nodes.iter().map(|n| (n.kind.name(), n.depth, n.alerts)).collect::<Vec<_>>(), [("absence", 1, false), ("temporal", 1, true)]);
    assert_eq!((plan.feeds(0)[0].node, plan.feeds(1)[0].node, plan.alerts(0)), (0, 1, false));
}

#[test]
fn evidence_survives_a_new_threshold_only() {
    let base = correlation("c", CorrelationKind::EventCount, &["a"], &["g"]);
    let state = |c: &Correlation| Plan::compile(&[rule("a")], &[c]).unwrap().nodes[0].state;
    let change = |edit: &dyn Fn(&mut Correlation)| {
        let mut c = base.clone();
        edit(&mut c);
        state(&c) == state(&base)
    };
    assert!(change(&|c| c.bounds = vec![(Comparison::Gt, 9.0)]));
    assert!(change(&|c| c.meta.level = Level::Low));
    assert!(!change(&|c| c.timespan_ms = 61_000));
    assert!(!change(&|c| c.group_by.push(at("h".into()))));
    assert!(!change(&|c| c.meta.ext.scope = Scope::Organization));
    assert!(!change(&|c| c.kind = CorrelationKind::Temporal));
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let check = |edit: &dyn Fn(&mut Correlation), expected: &str| {
        let child = correlation("child", CorrelationKind::EventCount, &["a"], &["g"]);
        let mut c = correlation("c", CorrelationKind::EventCount, &["a"], &["g"]);
        edit(&mut c);
        let faults = Plan::compile(&[rule("a")], &[child, c]).unwrap_err();
        assert!(faults.iter().any(|f| f.message.contains(expected)), "{expected}: {faults:?}");
    };
    check(&|c| c.rules = vec![], "names 1 to 256 rules");
    check(&|c| c.rules = vec![at("nobody".into())], "no rule or correlation has the id or name `nobody`");
    check(&|c| c.rules = vec![at("c".into())], "refers to itself");
    check(&|c| c.bounds = vec![], "needs a condition");
    check(&|c| c.timespan_ms = 0, "at least 1s");
    check(&|c| c.kind = CorrelationKind::TemporalOrdered, "an order is of all its rules");
    check(&|c| c.kind = CorrelationKind::ValuePercentile { field: at("f".into()), percentile: 0.0 }, "above 0");
    check(&|c| c.expression = Some(at(Expression::Rule(0))), "only temporal");
    check(
        &|c| {
            c.kind = CorrelationKind::TemporalOrdered;
            c.bounds = vec![];
            c.expression = Some(at(Expression::Not(Box::new(Expression::Rule(0)))));
        },
        "`not` has no place in an order",
    );
    check(
        &|c| {
            c.rules = vec![at("child".into())];
            c.group_by = vec![at("other".into())];
        },
        "isn't in the group-by",
    );
}
