//! Tables of conditions and what they mean.

use proptest::prelude::*;

use super::*;
use crate::rule::{
    ast::Span,
    yaml::{self, Kind},
};

const NAMES: [&str; 5] = ["selection", "filter_a", "filter_b", "_hidden", "a-b"];

fn show(condition: &Condition) -> String {
    let list = |parts: &[Condition], word| format!("({})", parts.iter().map(show).collect::<Vec<_>>().join(word));
    match condition {
        Condition::Selection(index) => NAMES[*index].to_owned(),
        Condition::Not(inner) => format!("!{}", show(inner)),
        Condition::And(parts) => list(parts, " & "),
        Condition::Or(parts) => list(parts, " | "),
    }
}

fn read(text: &str) -> Result<String, String> {
    let mut report = Report::new("x.yml".into());
    let end = text.len() as u32;
    let node = Node { span: Span { start: 0, end }, kind: Kind::Scalar { text: text.into(), plain: true } };
    match parse(&node, &NAMES, "selection", &mut report) {
        Some(condition) => Ok(show(&condition.value)),
        None => {
            let found = &report.found[0];
            let piece = &text[found.span.start as usize..found.span.end as usize];
            Err(format!("{} [{piece}] {}", found.message, found.hint.clone().unwrap_or_default()))
        }
    }
}

#[test]
fn conditions_mean() {
    for (text, expected) in [
        ("selection", "selection"),
        ("a-b", "a-b"),
        ("not selection", "!selection"),
        ("not not selection", "!!selection"),
        ("selection and not filter_a or filter_b", "((selection & !filter_a) | filter_b)"),
        ("selection or filter_a and filter_b", "(selection | (filter_a & filter_b))"),
        ("(selection or filter_a) and filter_b", "((selection | filter_a) & filter_b)"),
        ("not (selection or filter_a)", "!(selection | filter_a)"),
        ("selection AND NOT filter_a", "(selection & !filter_a)"),
        ("1 of filter_*", "(filter_a | filter_b)"),
        ("any of filter_*", "(filter_a | filter_b)"),
        ("all of filter_*", "(filter_a & filter_b)"),
        ("all of *_b", "filter_b"),
        ("1 of *t*_*", "(filter_a | filter_b)"),
        ("1 of them", "(selection | filter_a | filter_b | a-b)"),
        ("all of them", "(selection & filter_a & filter_b & a-b)"),
        ("1 of *", "(selection | filter_a | filter_b | a-b)"),
        ("1 of _*", "_hidden"),
        ("1 of selection", "selection"),
        ("_hidden", "_hidden"),
        ("selection and not 1 of filter_*", "(selection & !(filter_a | filter_b))"),
        ("(((selection)))", "selection"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn errors_point_and_hint() {
    for (text, parts) in [
        ("selecton", ["unknown selection `selecton`", "[selecton]", "did you mean `selection`?"]),
        ("selection | count() > 5", ["Sigma 1", "[| count() > 5]", "correlation"]),
        ("selection and", ["ends too early", "[]", "must follow"]),
        ("(selection", ["never closed", "[(]", "add `)`"]),
        ("selection)", ["unexpected `)`", "[)]", "no `(`"]),
        ("selection filter_a", ["unexpected `filter_a`", "[filter_a]", "`and`"]),
        ("1 of other_*", ["stands for no selection", "[other_*]", "there are: selection"]),
        ("2 of filter_*", ["unknown quantifier `2`", "[2]", "1 of"]),
        ("1 of", ["`of` what?", "[of]", "them"]),
        ("filter_*", ["several selections", "[filter_*]", "1 of filter_*"]),
        ("them", ["quantifier", "[them]", "1 of them"]),
        ("and selection", ["before and after `and`", "[and]", ""]),
        ("selection near filter_a", ["unexpected `near`", "[near]", ""]),
        ("()", ["must stand before this `)`", "[)]", ""]),
        ("", ["must be text", "[]", "name a selection"]),
    ] {
        let error = read(text).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

#[test]
fn depth_is_bounded() {
    for text in ["(".repeat(10_000), "not ".repeat(4_000), format!("{}selection", "not ".repeat(100))] {
        assert!(read(&text).is_err());
    }
    assert!(read(&format!("{}selection", "not ".repeat(50))).is_ok());
}

#[test]
fn a_folded_condition_is_read() {
    let mut report = Report::new("x.yml".into());
    let node = &yaml::parse("condition: >\n  selection\n  and not filter_a\n", &mut report)[0];
    let condition = parse(node.get("condition").unwrap(), &NAMES, "selection", &mut report).unwrap();
    assert_eq!(show(&condition.value), "(selection & !filter_a)");
}

proptest! {
    #[test]
    fn any_words_are_read_or_refused(text in "((not|and|or|1|all|of|them|selection|filter_\\*|\\(|\\)|x|é) ?){0,12}") {
        let _ = read(&text);
    }
}
