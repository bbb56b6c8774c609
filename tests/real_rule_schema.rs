//! Every detector, cases file and config is valid by the schemas that `trailwarden schema` prints.
//!
//! In: `detectors/`, one document of each extension, a config with every section. Out: the verdict of Python's jsonschema. Invariant: documents with a slip are
//! refused, so the check can fail.

#[path = "support/rules.rs"]
mod rules;
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn documents(name: &str, yaml: &str) -> Vec<String> {
    let read: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|e| panic!("{name}: {e}"));
    read.iter().map(|document| format!("{name}\t{document}\n")).collect()
}

/// What the validator says of the documents; `None` where it isn't installed.
fn validate(of: &str, lines: &[String]) -> Option<String> {
    let python = tools::tool("python")?;
    if !Command::new(&python).args(["-c", "import jsonschema"]).output().is_ok_and(|o| o.status.success()) {
        tools::left_out("rule schema", "run tests/setup");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    fs::write(&schema, Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["schema", of]).output().unwrap().stdout).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema.py");
    let mut child =
        Command::new(python).arg(script).arg(&schema).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

fn cases(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cases(&path, found);
        } else if path.to_string_lossy().ends_with(".cases.yml") {
            found.extend(documents(&path.display().to_string(), &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn detectors_and_cases_are_valid_by_our_schemas() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("detectors");
    let rules: Vec<String> = rules::texts(&folder).iter().flat_map(|(name, text)| documents(name, text)).collect();
    for kind in ["new_value", "value_drop", "absence"] {
        assert!(rules.iter().any(|line| line.contains(&format!("\"type\":\"{kind}\""))), "no detector shows {kind}");
    }
    let mut found = Vec::new();
    cases(&folder, &mut found);
    for (of, lines) in [("rule", &rules), ("cases", &found)] {
        let Some(said) = validate(of, lines) else { return };
        assert!(said.contains(&format!("{} documents, 0 faults", lines.len())), "{of}: {said}");
    }
}

#[test]
fn slips_are_refused() {
    let head = "title: x\nlogsource: {product: aws}\ndetection: {s: {a: b}, condition: s}\n";
    for (slip, place) in [
        ("trailwarden: {state: {type: new_valeu, fields: [a], memory: 1d, learning: 1d}}", "$.trailwarden.state.type"),
        ("trailwarden: {state: {type: absence, timespan: two hours}}", "$.trailwarden.state.timespan"),
        ("trailwarden: {stat: {type: absence, timespan: 2h}}", "$.trailwarden"),
        ("level: hihg", "$.level"),
    ] {
        let Some(said) = validate("rule", &documents("slip", &format!("{head}{slip}\n"))) else { return };
        assert!(said.contains(place), "{slip}: {said}");
    }
}

#[test]
fn configs_are_valid_and_their_slips_refused() {
    let whole = include_str!("support/whole.yml");
    let smallest = "kinesis: {streams: [a]}\n";
    let parsed =
        trailwarden::config::parse("whole.yml", whole, &|name| Some(if name == "FAILOVER_MS" { "3000" } else { "a long enough secret" }.into()));
    assert!(parsed.is_ok(), "{parsed:?}");
    let good: Vec<String> = [whole, smallest].iter().flat_map(|text| documents("good", text)).collect();
    let Some(said) = validate("config", &good) else { return };
    assert!(said.contains("2 documents, 0 faults"), "{said}");
    for (slip, place) in [
        ("workerz: 2", "workerz"),
        ("workers: two", "$.workers"),
        ("state: {lateness_seconds: soon}", "$.state.lateness_seconds"),
        ("sinks: {a: {pager: {}}}", "$.sinks.a"),
        ("rules: {profile: loud}", "$.rules.profile"),
        ("admin: {port: 1}", "port"),
    ] {
        let Some(said) = validate("config", &documents("slip", &format!("{smallest}{slip}\n"))) else { return };
        assert!(said.contains(place) && said.contains("1 documents, 1 faults"), "{slip}: {said}");
    }
}
