//! Errors have places; secrets have none.

use super::*;

fn told(text: &str) -> String {
    let variables = |name: &str| (name == "KEY").then(|| "CANARY-SECRET".to_owned());
    match parse("c.yml", text, &variables) {
        Ok(_) => String::new(),
        Err(wrong) => wrong.found.iter().map(|d| d.one_line(&wrong.text)).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn good() {
    let text = "kinesis: {streams: [audit]}\nsinks:\n  pager: {pagerduty: {routing_key: '${KEY}'}}\nworkers: 2\n";
    assert_eq!(told(text), "");
}

#[test]
fn wrong_with_places() {
    for (text, expected) in [
        ("kinesis: {streams: []}\n", "c.yml:1:1: "),
        ("kinesis: {streams: [a]}\nworkerz: 2\n", "c.yml:2:1: "),
        ("kinesis:\n  streams: [a]\n  budget_bytes: lots\n", "c.yml:3:17: "),
        ("kinesis:\n  streams: [a]\n  region: '${NOPE}'\n", "c.yml:3:11: "),
        ("kinesis: {streams: [a]}\nrouting: {routes: [{sinks: [x]}]}\n", "c.yml:2:1: "),
    ] {
        let told = told(text);
        assert!(told.starts_with(expected), "{text}\n{told}");
    }
    assert!(told("kinesis: {streams: [a]}\nworkerz: 2\n").contains("workers"));
}

#[test]
fn variables_stay_secret() {
    for text in [
        "kinesis: {streams: [a], budget_bytes: '${KEY}'}\n",
        "kinesis: {streams: [a], mode: '${KEY}'}\n",
        "kinesis: {streams: [a]}\nworkers: ${KEY}\n",
    ] {
        let told = told(text);
        assert!(!told.is_empty() && !told.contains("CANARY"), "{told}");
    }
}
