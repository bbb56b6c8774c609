//! Sets of several documents and files.

use std::collections::BTreeMap;

use super::*;
use crate::rule::ast::Condition;

fn rule(name: &str, extra: &str) -> String {
    format!(
        "title: {name}\nname: {name}\nlogsource: {{product: aws, service: cloudtrail}}\n{extra}detection:\n  a: {{eventName: {name}}}\n  condition: a\n---\n"
    )
}

fn count(name: &str, of: &str, extra: &str) -> String {
    format!("title: {name}\nname: {name}\n{extra}correlation: {{type: event_count, rules: [{of}], timespan: 1h, condition: {{gte: 2}}}}\n---\n")
}

fn read(text: &str) -> Loaded {
    with_options(text, &Options::default())
}

fn with_options(text: &str, options: &Options) -> Loaded {
    load_texts(vec![Source { name: "x.yml".into(), text: text.to_owned().into() }], options)
}

fn messages(loaded: &Loaded) -> Vec<&str> {
    loaded.diagnostics.iter().map(|found| found.message.as_str()).collect()
}

#[test]
fn correlations_are_linked_children_first() {
    let text = [count("top", "middle", ""), count("middle", "a, b", ""), rule("a", ""), rule("b", "")].concat();
    let loaded = read(&text);
    assert!(loaded.diagnostics.is_empty(), "{:?}", messages(&loaded));
    let titles: Vec<_> = loaded.set.correlations.iter().map(|linked| linked.correlation.meta.title.value.as_str()).collect();
    assert_eq!(titles, ["middle", "top"]);
    assert_eq!(loaded.set.correlations[0].children, [Reference::Rule(0), Reference::Rule(1)]);
    assert_eq!(loaded.set.correlations[1].children, [Reference::Correlation(0)]);
    let alerts: Vec<_> = loaded.set.rules.iter().map(|linked| linked.role.alerts).collect();
    assert_eq!((alerts, loaded.set.correlations[0].role.alerts, loaded.set.correlations[1].role.alerts), (vec![false, false], false, true));
}

#[test]
fn generate_lets_children_alert() {
    let text = [rule("a", ""), count("c", "a", "").replace("timespan", "generate: true, timespan"), count("d", "a", "")].concat();
    assert!(read(&text).set.rules[0].role.alerts);
}

#[test]
fn references_that_lead_nowhere_are_errors() {
    for (text, expected) in [
        ([rule("alpha", ""), count("c", "alpa", "")].concat(), vec!["no rule has the id or name `alpa`"]),
        ([count("c", "d", ""), count("d", "c", "")].concat(), vec!["refers to itself", "refers to itself"]),
        ([rule("a", ""), rule("a", "id: 0\n"), count("c", "a", "")].concat(), vec!["no UUID", "several rules have the name `a`"]),
        (["title: x\nname: x\ndetection: {}\n---\n".to_owned(), count("c", "x", "")].concat(), vec!["no logsource", "no condition"]),
        (
            format!("{}{}", count("c", "b", ""), "title: f\nlogsource: {product: aws}\nfilter: {rules: [c], s: {a: x}, condition: not s}\n"),
            vec!["no rule has the id or name `b`", "this is a correlation"],
        ),
    ] {
        let loaded = read(&text);
        let found = messages(&loaded);
        assert!(expected.iter().all(|part| found.iter().any(|message| message.contains(part))), "{text}: {found:?}");
    }
}

#[test]
fn filters_join_the_rules_that_they_name() {
    let filter = |rules: &str, product: &str| {
        format!("title: f\nlogsource: {{product: {product}}}\nfilter:\n  rules: {rules}\n  own: {{user: me}}\n  condition: not own\n")
    };
    let joined = Condition::And(vec![Condition::Selection(0), Condition::Not(Box::new(Condition::Selection(1)))]);
    for (rules, product, expected) in [("[a]", "aws", 1), ("any", "aws", 2), ("any", "windows", 0), ("[a, b]", "aws", 2), ("[a]", "windows", 0)] {
        let loaded = read(&[rule("a", ""), rule("b", ""), filter(rules, product)].concat());
        let changed = loaded.set.rules.iter().filter(|linked| linked.rule.conditions[0].value == joined).count();
        assert_eq!(changed, expected, "{rules} {product}");
        assert_eq!(loaded.diagnostics.len(), usize::from(rules != "any" && product != "aws"), "{:?}", messages(&loaded));
    }
}

#[test]
fn equal_ids_are_told_apart() {
    let id = "id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11\n";
    let loaded = read(&[rule("a", id), rule("b", id)].concat());
    assert_eq!(messages(&loaded), ["another rule has the id `5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11` too"]);
    assert!(!loaded.has_errors());
    let keys: Vec<_> = loaded.set.rules.iter().map(|linked| linked.rule.meta.key()).collect();
    assert_eq!(keys, ["5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11", "5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11#2"]);
}

#[test]
fn louder_profiles_run_only_where_they_are_needed() {
    let loud = "trailwarden: {profile: paranoid}\n";
    let text = [rule("a", loud), rule("b", loud), rule("c", ""), count("d", "a", "")].concat();
    let roles: Vec<_> = read(&text).set.rules.iter().map(|linked| (linked.role.runs, linked.role.alerts)).collect();
    assert_eq!(roles, [(true, false), (false, false), (true, true)]);
    let options = Options { profile: Profile::Paranoid, ..Default::default() };
    let roles: Vec<_> = with_options(&text, &options).set.rules.iter().map(|linked| (linked.role.runs, linked.role.alerts)).collect();
    assert_eq!(roles, [(true, false), (true, true), (true, true)]);
}

#[test]
fn folders_are_walked_and_later_inputs_replace() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("one/x/a.yml", &rule("a", "level: low\n"));
    write("one/b.yaml", &rule("b", ""));
    write("one/b.cases.yml", "not a rule");
    write("one/.hidden/c.yml", "not a rule");
    write("one/notes.txt", "not a rule");
    write("two/a.yml", &rule("a", "level: high\n"));
    let inputs = [Input::Path(folder.path().join("one")), Input::Path(folder.path().join("two"))];
    let loaded = load(&inputs, &Options::default());
    assert!(loaded.diagnostics.is_empty(), "{:?}", messages(&loaded));
    let rules: Vec<_> = loaded.set.rules.iter().map(|linked| (linked.rule.meta.key(), linked.rule.meta.level)).collect();
    assert_eq!(rules, [("b", crate::rule::ast::Level::Medium), ("a", crate::rule::ast::Level::High)]);

    write("bad/latin.yml", "x");
    fs::write(folder.path().join("bad/latin.yml"), b"title: \xff").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    let inputs = ["bad", "empty", "missing"].map(|name| Input::Path(folder.path().join(name)));
    let loaded = load(&inputs, &Options::default());
    let found = messages(&loaded);
    assert!(found[0].contains("byte 7 is not UTF-8") && found[1].contains("no rules") && found[2].contains("can't be read"), "{found:?}");
}

#[test]
fn built_in_detectors_have_no_errors() {
    let lists = Lists::new(BTreeMap::new());
    let loaded = load(&[Input::Builtin], &Options { lists, profile: Profile::Paranoid });
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
}

/// The public rules for AWS lie beside the repository, if at all.
pub(in crate::rule) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TRAILWARDEN_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    Some(root.join(path)).filter(|path| path.exists())
}

#[test]
fn the_public_aws_rules_load_without_errors() {
    let Some(folder) = shared("sigma_aws/cloudtrail") else {
        return println!("left out: the public rules are not here");
    };
    let loaded = load(&[Input::Path(folder)], &Options::default());
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    assert_eq!(loaded.set.rules.len(), 57);
}
