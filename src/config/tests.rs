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
        ("kinesis: {streams: [a]}\ndelivery: {fallback: x}\n", "c.yml:2:1: "),
        ("kinesis: {streams: [a]}\nsinks: {a: {sns: {topic_arn: x}}}\n", "c.yml:2:19: "),
        ("kinesis: {streams: [a]}\nsinks: {a: {alertmanager: {urls: ['http://am:9093'], bearer_token: abc}}}\n", "c.yml:2:28: "),
        ("kinesis: {streams: [a]}\nsinks: {a: {webhook: {url: 'https://x/', headers: {'a b': c}}}}\n", "c.yml:2:42: "),
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

#[test]
fn variables_and_files_fill_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "12345678901234567890123456789012\n").unwrap();
    let variables = |name: &str| (name == "BYTES").then(|| "70000000".to_owned());
    let text = format!(
        "kinesis:\n  streams: ['a-${{BYTES}}']\n  budget_bytes: ${{BYTES}}\nsinks:\n  pager:\n    pagerduty:\n      routing_key: ${{file:{}}}\n",
        file.display()
    );
    let config = parse("c.yml", &text, &variables).unwrap();
    assert_eq!((config.kinesis.budget_bytes, config.kinesis.streams[0].as_str()), (70_000_000, "a-70000000"));
    let crate::sink::Config::Pagerduty(pager) = &config.sinks["pager"] else { panic!("{:?}", config.sinks) };
    assert_eq!(pager.routing_key.expose(), "12345678901234567890123456789012");
    for (value, expected) in
        [("'${file:/nowhere/key}'", "c.yml:1:19: error: the file `/nowhere/key` can't be read"), ("'${KEY'", "c.yml:1:19: error: `${` without `}`")]
    {
        let told = told(&format!("kinesis: {{region: {value}, streams: [a]}}\n"));
        assert!(told.contains(expected), "{told}");
    }
}
