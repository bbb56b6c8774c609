//! Golden tables: selections and the items that they become, one line of SIGMA.md B and D each.

use std::collections::BTreeMap;

use super::*;
use crate::rule::{ast::Part, yaml};

/// Parses `text` as a whole detection.
fn read(text: &str) -> (Option<Detection>, Vec<String>) {
    let lists: BTreeMap<String, Vec<String>> = [
        ("own_accounts", vec!["111111111111", "222222222222"]),
        ("own_networks", vec!["10.0.0.0/8"]),
        ("roles", vec!["arn:aws:iam::*:role/x"]),
        ("empty", vec![]),
        ("bad_networks", vec!["nowhere"]),
    ]
    .into_iter()
    .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()))
    .collect();
    let mut report = Report::new("x.yml".into());
    let nodes = yaml::parse(text, &mut report);
    let detection = nodes.first().and_then(|node| parse(node, &[], &Lists::new(lists), &mut report));
    let show = |found: &crate::rule::diagnostic::Diagnostic| {
        let piece = &text[found.span.start as usize..found.span.end as usize];
        format!("{} [{piece}] {}", found.message, found.hint.clone().unwrap_or_default())
    };
    (detection, report.found.iter().map(show).collect())
}

fn selection(body: &str) -> (Option<Block>, Vec<String>) {
    let body = if body.starts_with("'a") { format!("\n  {body}") } else { format!(" {body}") };
    let (detection, found) = read(&format!("sel:{body}\ncondition: sel\n"));
    (detection.map(|mut detection| detection.selections.remove(0).body), found)
}

fn show(block: &Block) -> String {
    match block {
        Block::All(items) => items.iter().map(item).collect::<Vec<_>>().join(" & "),
        Block::Any(blocks) => format!("({})", blocks.iter().map(show).collect::<Vec<_>>().join(" | ")),
    }
}

fn item(item: &Item) -> String {
    let target = match &item.target {
        Target::Field(name) => name.value.as_str(),
        Target::Keyword => "KEYWORD",
    };
    let tests: Vec<_> = item.tests.iter().map(|found| test(&found.value)).collect();
    let joined = tests.join(if item.all { " && " } else { " || " });
    format!("{}{target}: {joined}", if item.negated { "!" } else { "" })
}

fn test(test: &Test) -> String {
    match test {
        Test::Text { pattern, cased } => {
            let parts: String = pattern
                .0
                .iter()
                .map(|part| match part {
                    Part::Literal(text) => format!("`{text}`"),
                    Part::Star => "*".into(),
                    Part::Question => "?".into(),
                })
                .collect();
            let parts = if parts.is_empty() { "``".to_owned() } else { parts };
            format!("{parts}{}", if *cased { " cased" } else { "" })
        }
        Test::Number(lexeme) => format!("number {lexeme}"),
        Test::Bool(value) => format!("bool {value}"),
        Test::Regex { source, ignore_case, multi_line, dot_all } => {
            let flag = |set: &bool, flag| if *set { flag } else { "" };
            format!("/{source}/{}{}{}", flag(ignore_case, "i"), flag(multi_line, "m"), flag(dot_all, "s"))
        }
        Test::Cidr(net) => format!("in {net}"),
        Test::Element { every, block } => format!("{}{{{}}}", if *every { "every" } else { "one" }, show(block)),
        Test::FieldRef { field, how, cased } => format!("ref {field} {how:?}{}", if *cased { " cased" } else { "" }),
        Test::Compare { op, number, lexeme } => format!("{op:?} {number} ({lexeme})"),
        Test::TimePart { part, op, value } => format!("{part:?} {op:?} {value}"),
        Test::Unexpanded { name } => format!("never %{name}%"),
        other => format!("{other:?}"),
    }
}

#[test]
fn selections_mean() {
    for (body, expected) in [
        // Values and their types.
        ("{a: x}", "a: `x`"),
        ("{a.b.c: x}", "a.b.c: `x`"),
        ("{a: 'true'}", "a: `true`"),
        ("{a: true}", "a: bool true"),
        ("{a: 5}", "a: number 5"),
        ("{a: '5'}", "a: `5`"),
        ("{a: 012345678901}", "a: `012345678901`"),
        ("{a: null}", "a: Null"),
        ("{a: }", "a: Null"),
        ("{a: ''}", "a: ``"),
        ("{a: [x, null]}", "a: `x` || Null"),
        ("{a: 'x*y?'}", "a: `x`*`y`?"),
        (r"{a: 'x\*y'}", "a: `x*y`"),
        // Lists, maps, keywords.
        ("{a: [x, y], b: z}", "a: `x` || `y` & b: `z`"),
        ("[{a: x}, {b: y, c: z}]", "(a: `x` | b: `y` & c: `z`)"),
        ("[{a: x}]", "a: `x`"),
        ("[foo, 'b*r', 5]", "KEYWORD: *`foo`* || *`b`*`r`* || *`5`*"),
        ("foo", "KEYWORD: *`foo`*"),
        ("[foo, {a: x}, bar, baz]", "(KEYWORD: *`foo`* | a: `x` | KEYWORD: *`bar`* || *`baz`*)"),
        ("{'|all': [foo, bar]}", "KEYWORD: *`foo`* && *`bar`*"),
        ("{'|re': 'f.o'}", "KEYWORD: /f.o/"),
        // Text modifiers.
        ("{a|contains: x}", "a: *`x`*"),
        ("{a|startswith: x}", "a: `x`*"),
        ("{a|endswith: x}", "a: *`x`"),
        ("{a|contains: '*'}", "a: *"),
        ("{a|contains: 5}", "a: *`5`*"),
        ("{a|contains|all: [x, y]}", "a: *`x`* && *`y`*"),
        ("{a|all|contains: [x, y]}", "a: *`x`* && *`y`*"),
        ("{a|cased: X}", "a: `X` cased"),
        ("{a|contains|cased: X}", "a: *`X`* cased"),
        ("{a|cased: 5}", "a: `5` cased"),
        ("{a|neq: x}", "!a: `x`"),
        ("{a|neq: [x, 5]}", "!a: `x` || number 5"),
        ("{a|contains|neq|all: [x, y]}", "!a: *`x`* && *`y`*"),
        ("{a|exists: true}", "a: Exists(true)"),
        ("{a|exists: false}", "a: Exists(false)"),
        // Regular expressions.
        ("{a|re: '^f.o$'}", "a: /^f.o$/"),
        ("{a|re|i|m|s: x}", "a: /x/ims"),
        ("{a|re|ignorecase|multiline|dotall: x}", "a: /x/ims"),
        ("{a|re|contains: x}", "a: /x/"),
        ("{a|re: [x, y]}", "a: /x/ || /y/"),
        // Encodings.
        ("{a|base64: foobar}", "a: `Zm9vYmFy`"),
        ("{a|base64offset|contains: /bin/bash}", "a: *`L2Jpbi9iYXNo`* || *`9iaW4vYmFza`* || *`vYmluL2Jhc2`*"),
        ("{a|wide|base64: cmd}", "a: `YwBtAGQA`"),
        ("{a|utf16le|base64: cmd}", "a: `YwBtAGQA`"),
        ("{a|utf16be|base64: cmd}", "a: `AGMAbQBk`"),
        ("{a|utf16|base64: cmd}", "a: `//5jAG0AZAA=`"),
        ("{a|windash: ' -x a-b'}", "a: ` -x a-b` || ` /x a-b` || ` –x a-b` || ` —x a-b` || ` ―x a-b`"),
        ("{a|windash|contains|all: [' -x', y]}", "a: *` -x`* || *` /x`* || *` –x`* || *` —x`* || *` ―x`* & a: *`y`*"),
        // Numbers, times, networks.
        ("{a|lt: 5}", "a: Lt 5 (5)"),
        ("{a|gte: -1.5}", "a: Gte -1.5 (-1.5)"),
        ("{a|gt: 1, b|lte: 2}", "a: Gt 1 (1) & b: Lte 2 (2)"),
        ("{a|hour: [22, 23]}", "a: Hour Eq 22 || Hour Eq 23"),
        ("{a|hour|lt: 6}", "a: Hour Lt 6"),
        (
            "{a|minute: 0, a|day: 1, a|week: 53, a|month: 12, a|year: 2026}",
            "a: Minute Eq 0 & a: Day Eq 1 & a: Week Eq 53 & a: Month Eq 12 & a: Year Eq 2026",
        ),
        ("{a|cidr: [10.1.2.3/8, '2001:db8::/32', 1.2.3.4]}", "a: in 10.0.0.0/8 || in 2001:db8::/32 || in 1.2.3.4/32"),
        // References.
        ("{a|fieldref: b.c}", "a: ref b.c Whole"),
        ("{a|startswith|fieldref: b}", "a: ref b Starts"),
        ("{a|fieldref|endswith: b}", "a: ref b Ends"),
        ("{a|fieldref|contains|cased: b}", "a: ref b Contains cased"),
        ("{a|fieldref|neq: b}", "!a: ref b Whole"),
        // Placeholders.
        ("{a|expand: '%own_accounts%'}", "a: `111111111111` || `222222222222`"),
        ("{a|expand|contains: ':%own_accounts%:'}", "a: *`:111111111111:`* || *`:222222222222:`*"),
        ("{a|contains|expand: '%roles%'}", "a: *`arn:aws:iam::`*`:role/x`*"),
        ("{a|expand: ['%empty%', y]}", "a: never %empty% || `y`"),
        ("{a|expand: '%break_glass_roles%'}", "a: never %break_glass_roles%"),
        ("{a|expand|cidr: '%own_networks%'}", "a: in 10.0.0.0/8"),
        ("{a|cidr|expand: '%own_networks%'}", "a: in 10.0.0.0/8"),
        ("{a|expand: '100%% of %own_accounts%'}", "a: `100%% of 111111111111` || `100%% of 222222222222`"),
        ("{a: '%own_accounts%'}", "a: `%own_accounts%`"),
        ("{a|expand|contains|all: ['%own_accounts%', x]}", "a: *`111111111111`* || *`222222222222`* & a: *`x`*"),
        // One object of an array.
        ("'a[any]': {b: x, c|gte: 1}", "a: one{b: `x` & c: Gte 1 (1)}"),
        ("'a.items[all]': {b: x}", "a.items: every{b: `x`}"),
        ("'a[any]': [{b: x}, {b: y}]", "a: one{(b: `x` | b: `y`)}"),
        ("'a[any]': {'b[any]': {c: x}}", "a: one{b: one{c: `x`}}"),
    ] {
        let (block, found) = selection(body);
        let block = block.unwrap_or_else(|| panic!("{body}: {found:?}"));
        assert_eq!(show(&block), expected, "{body}");
        assert!(found.is_empty(), "{body}: {found:?}");
    }
}

#[test]
fn errors_point_and_hint() {
    for (body, parts) in [
        ("{a|cotains: x}", ["unknown modifier `cotains`", "[cotains]", "did you mean `contains`?"]),
        ("{a|regex: x}", ["unknown modifier `regex`", "[regex]", "`re`"]),
        ("{'a|Contains': x}", ["unknown modifier `Contains`", "[Contains]", "`contains`"]),
        ("{a|contains|startswith: x}", ["exclude each other", "[startswith]", "keep one"]),
        ("{a|all|all: [x, y]}", ["stands twice", "[all]", "remove"]),
        ("{a|: x}", ["unknown modifier ``", "[]", "known: all"]),
        ("{a|i: x}", ["flag of `re`", "[i]", "field|re|i"]),
        ("{a|re|cidr: x}", ["`cidr` can't be joined", "[cidr]", "keep one"]),
        ("{a|re|startswith: x}", ["not anchored", "[a|re|startswith]", "`^`"]),
        ("{a|re: '(?=x)'}", ["look-around", "['(?=x)']", "second key"]),
        ("{a|re: '(x'}", ["regular expression, character 1", "['(x']", "PCRE"]),
        ("{a|re: '*x'}", ["regular expression", "['*x']", "escape"]),
        ("{a|re: ''}", ["empty regular expression", "['']", "exists"]),
        (r"{a|re: '(x)\1'}", ["backreference", "[", "fieldref"]),
        ("{a|base64: 'x*'}", ["wildcards can't be encoded", "['x*']", "change"]),
        ("{a|wide: x}", ["UTF-16", "[a|wide]", "base64"]),
        ("{a|contains|base64: x}", ["can't encode the wildcards", "[base64]", "last"]),
        ("{a|lt: x}", ["needs a number, not `x`", "[x]", "without quotes"]),
        ("{a|lt: '5'}", ["needs a number", "['5']", "without quotes"]),
        ("{a|hour: 24}", ["not a value of this part", "[24]", "0 to 23"]),
        ("{a|cidr: AWS Internal}", ["is no network", "[AWS Internal]", "CIDR"]),
        ("{a|expand|cidr: '%bad_networks%'}", ["`nowhere` is no network", "['%bad_networks%']", "CIDR"]),
        ("{a|exists: 'true'}", ["true or false", "['true']", "without quotes"]),
        ("{a|fieldref: 'b*'}", ["name of a field", "['b*']", "path"]),
        ("{a|contains: null}", ["not null", "[null]", "remove the modifier"]),
        ("{a|expand: x}", ["without a placeholder", "[x]", "%name%"]),
        ("{a|windash|re: x}", ["something else", "[a|windash|re]", "remove"]),
        ("{a|cased|lt: 5}", ["`cased` is for text", "[a|cased|lt]", "remove"]),
        ("{'|lt': 5}", ["needs a field", "[", "before the `|`"]),
        ("{a: []}", ["empty list", "[[]]", "null"]),
        ("{a: {b: c}}", ["can't be a map", "[{b: c", "dots"]),
        ("{a: [[x]]}", ["can't be a list", "[[x", "flat"]),
        ("{}", ["empty map", "[{}]", "name a field"]),
        ("[]", ["empty list", "[[]]", "list"]),
        ("[[x]]", ["list in a list", "[", "flat"]),
        ("[null]", ["can't be null", "[null]", "text"]),
        ("'a[any]': x", ["need a map", "[x]", "{inner: value}"]),
        ("'a[any]|contains': {b: x}", ["no modifiers", "[", "inside"]),
        ("'a[any]': [x]", ["keywords have no place", "[[x]]", "fields"]),
        ("{' a': x}", ["begin or end with a space", "[ a]", ""]),
        ("{a|windash|contains|neq|all: [' -x', y]}", ["can't be said in one key", "[", "`not`"]),
    ] {
        let (block, found) = selection(body);
        assert!(block.is_none(), "{body}");
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert!(parts.iter().all(|part| found[0].contains(part)), "{body}: {found:?}");
    }
}

#[test]
fn warnings_point_and_hint() {
    for (body, parts) in [
        ("{a|expand: '%own_acounts%'}", ["no list `own_acounts`", "['%own_acounts%']", "did you mean `%own_accounts%`?"]),
        ("{a|expand: '%other%'}", ["no list `other`", "['%other%']", "config"]),
        ("{a|contains|all: x}", ["`all` over one value", "[a|contains|all]", "remove"]),
    ] {
        let (block, found) = selection(body);
        assert!(block.is_some(), "{body}: {found:?}");
        assert!(found.len() == 1 && parts.iter().all(|part| found[0].contains(part)), "{body}: {found:?}");
    }
}

#[test]
fn all_errors_come_in_one_run() {
    let (detection, found) = read("a: {x|foo: 1, y|lt: z}\nb: {q|re: '('}\ncondition: a and c\n");
    assert!(detection.is_none());
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn parts_of_a_detection_are_required() {
    for (text, expected) in [
        ("selection: {a: x}", "there is no condition"),
        ("condition: selection", "there is no selection"),
        ("selection: {a: x}\ntimeframe: 5m\ncondition: selection", "`timeframe` is gone"),
        ("selection: {a: x}\ncondition: []", "empty list of conditions"),
        ("selection: {a: x}\ncondition: {a: b}", "a condition must be text"),
        ("- a", "must be a map"),
    ] {
        let (detection, found) = read(text);
        assert!(detection.is_none() && found.iter().any(|found| found.contains(expected)), "{text}: {found:?}");
    }
}

#[test]
fn a_list_of_conditions_is_kept() {
    let (detection, found) = read("a: {x: 1}\nb: {x: 2}\ncondition:\n  - a\n  - a and not b\n");
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(detection.unwrap().conditions.len(), 2);
}
