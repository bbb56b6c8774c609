//! Alerts in OCSF form are valid by the published schema.
//!
//! In: alerts of all levels and activities. Out: the verdict of a JSON Schema made from OCSF's own files. Invariant: a finding
//! with a wrong field is refused, so the check can fail.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/tools.rs"]
mod tools;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::json;
use trailwarden::alert::{
    Level,
    ocsf::{Activity, detection_finding},
};

fn validate(lines: &str) -> Option<Output> {
    let python = tools::tool("python")?;
    if !Command::new(&python).args(["-c", "import ocsf_json_schema, jsonschema"]).output().is_ok_and(|o| o.status.success()) {
        tools::left_out("OCSF schema", "run tests/setup");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ocsf.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn findings_pass_the_published_schema() {
    let mut lines = String::new();
    for level in [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical] {
        for activity in [Activity::Create, Activity::Update, Activity::Close] {
            let mut bare = alerts::alert(2, level);
            bare.events.clear();
            bare.group.clear();
            bare.account.clear();
            bare.region.clear();
            for alert in [alerts::alert(1, level), bare] {
                lines += &format!("{}\n", detection_finding(&alert, activity, Some("production")));
            }
        }
    }
    let Some(out) = validate(&lines) else { return };
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("30 findings, 0 faults"), "{said}");

    let mut wrong = detection_finding(&alerts::alert(1, Level::High), Activity::Create, None);
    wrong["severity_id"] = json!("high");
    let out = validate(&wrong.to_string()).unwrap();
    assert!(!out.status.success());
}
