//! The commands for people who write rules, run as they run them: `check`, `test`, `explain`, `rules`, `schema`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const RULE: &str = "title: Trail stopped
id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11
level: high
tags: [attack.t1562.008, pillar.monitoring, service.cloudtrail]
logsource: {product: aws, service: cloudtrail}
detection:
  selection:
    eventSource: cloudtrail.amazonaws.com
    eventName: StopLogging
  filter_failed:
    errorCode: '?*'
  condition: selection and not 1 of filter_*
";

const CASES: &str = "cases:
  - name: stopped
    match: true
    events: [{eventSource: cloudtrail.amazonaws.com, eventName: StopLogging}]
  - name: tried
    match: false
    events: [{eventSource: cloudtrail.amazonaws.com, eventName: StopLogging, errorCode: AccessDenied}]
";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn check_tells_every_error_of_every_file() {
    let broken = RULE.replace("eventName: StopLogging", "eventName|cotains: StopLogging").replace("level: high", "level: hihg");
    let folder = folder(&[("a.yml", &broken), ("b.yml", "title: b\n"), ("c.yml", RULE)]);
    let output = run(&["check", path(folder.path())]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in [
        "a.yml:9:15",
        "eventName|cotains: StopLogging",
        "did you mean `contains`?",
        "unknown level `hihg`",
        "b.yml:1:1",
        "the document detects nothing",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(text(&output.stdout).starts_with("1 rule, 0 correlations, 0 filters: 3 errors, 0 warnings"), "{}", text(&output.stdout));
    assert!(!told.contains('\u{1b}'));
}

#[test]
fn check_warns_and_passes() {
    let folder = folder(&[("a.yml", &RULE.replace("errorCode: '?*'", "errorCode: Success"))]);
    let output = run(&["check", "--short", path(folder.path())]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("a.yml:11:16: warning: `errorCode` never is `Success`"), "{}", text(&output.stderr));
    assert_eq!(run(&["check", "--strict", path(folder.path())]).status.code(), Some(1));
    assert_eq!(run(&["check", "/does/not/exist"]).status.code(), Some(2));
}

#[test]
fn cases_pass_fail_and_break() {
    let good = folder(&[("a.yml", RULE), ("a.cases.yml", CASES)]);
    let output = run(&["test", path(good.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("2 of 2 cases passed in 1 file"), "{}", text(&output.stdout));

    let bad = folder(&[("a.yml", RULE), ("a.cases.yml", &CASES.replace("match: false", "match: true"))]);
    let junit = bad.path().join("junit.xml");
    let output = run(&["test", path(bad.path()), "--junit", path(&junit)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("a.cases.yml:5: tried: event `StopLogging` in line 7 must match and does not"), "{}", text(&output.stdout));
    let xml = fs::read_to_string(junit).unwrap();
    assert!(xml.contains("tests=\"2\" failures=\"1\"") && xml.contains("name=\"tried\"><failure"), "{xml}");

    let broken = folder(&[("a.yml", RULE), ("a.cases.yml", "cases: [{name: x}]")]);
    assert_eq!(run(&["test", path(broken.path())]).status.code(), Some(2));
    assert_eq!(run(&["test", path(tempfile::tempdir().unwrap().path())]).status.code(), Some(2));
}

#[test]
fn explain_shows_each_line_with_what_it_saw() {
    let events = "{\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"StopLogging\",\"eventID\":\"1\",\"errorCode\":\"Denied\\u001b[31m\"}\n\
                  {\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"StopLogging\",\"eventID\":\"2\"}\n";
    let folder = folder(&[("a.yml", RULE), ("events.json", events)]);
    let (rules, events) = (folder.path().join("a.yml"), folder.path().join("events.json"));
    let output = run(&["explain", "--rule", "Trail stopped", "--rules", path(&rules), path(&events)]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in [
        "matched: StopLogging  2",
        "no match: StopLogging  1",
        "true   eventName: StopLogging   <- \"StopLogging\"",
        "false  errorCode: '?*'   <- missing",
        "true   filter_failed",
        "1 of 2 events matched",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    assert!(!told.contains('\u{1b}'));
    let unknown = run(&["explain", "--rule", "Trail stoped", "--rules", path(&rules), path(&events)]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("did you mean `Trail stopped`?"), "{}", text(&unknown.stderr));
}

#[test]
fn rules_are_listed_shown_and_counted() {
    let folder = folder(&[("a.yml", RULE)]);
    let rules = ["--rules", path(folder.path())];
    let list = text(&run(&["rules", "list", rules[0], rules[1]]).stdout);
    assert!(list.contains("high") && list.contains("5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c11") && list.contains("Trail stopped"), "{list}");
    let json = text(&run(&["rules", "list", rules[0], rules[1], "--format", "json"]).stdout);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["level"], "high");
    let shown = text(&run(&["rules", "show", "Trail stopped", rules[0], rules[1]]).stdout);
    assert!(shown.contains("condition: selection and not 1 of filter_*"), "{shown}");
    let coverage = text(&run(&["rules", "coverage", rules[0], rules[1]]).stdout);
    assert!(coverage.contains("cloudtrail") && coverage.contains("monitoring") && coverage.contains("T1562.008 (1)"), "{coverage}");
}

#[test]
fn schemas_and_completions_come_out_whole() {
    for of in ["rule", "cases"] {
        let schema: serde_json::Value = serde_json::from_slice(&run(&["schema", of]).stdout).unwrap();
        assert_eq!(schema["type"], "object");
    }
    assert!(text(&run(&["completions", "bash"]).stdout).contains("trailwarden"));
    assert!(text(&run(&["man"]).stdout).contains(".TH"));
}

#[test]
fn built_in_detectors_pass_their_cases_and_the_lints() {
    let output = run(&["test"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let output = run(&["check", "--short"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
