//! An alert as an OCSF Detection Finding (class 2004, schema 1.8.0, cloud profile): <https://schema.ocsf.io/1.8.0/classes/detection_finding>.
//!
//! In: a redacted alert. Out: JSON that the published schema accepts. Invariant: an activity that closes has the same
//! `finding_info.uid` as the one that created.

use serde_json::{Map, Value, json};

use super::{Alert, EventRef, Level, RuleInfo};

const SCHEMA_VERSION: &str = "1.8.0";
const CLASS_UID: u32 = 2004;

/// What happened to the finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    Create,
    Update,
    Close,
}

/// `account_name`: how the config calls the account. The time of a closing is the alert's own.
pub fn detection_finding(alert: &Alert, activity: Activity, account_name: Option<&str>) -> Value {
    let (activity_id, status_id, status) = match activity {
        Activity::Create => (1, 1, "New"),
        Activity::Update => (2, 2, "In Progress"),
        Activity::Close => (3, 4, "Resolved"),
    };
    let mut finding = json!({
        "activity_id": activity_id,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + activity_id,
        "time": alert.time_ms,
        "severity_id": severity_id(alert.rule.level),
        "severity": severity(alert.rule.level),
        "status_id": status_id,
        "status": status,
        "is_alert": true,
        "message": alert.summary,
        "count": alert.count.min(i32::MAX as u64),
        "metadata": metadata(alert),
        "cloud": cloud(alert, account_name),
        "finding_info": finding_info(alert),
    });
    let fields = finding.as_object_mut().expect("made as an object above");
    let evidences: Vec<Value> = alert.events.iter().map(evidence).collect();
    insert_filled(fields, "evidences", evidences);
    insert_filled(fields, "observables", alert.group.iter().map(|(name, value)| observable(name, value)).collect());
    if let Some(next) = &alert.rule.next {
        fields.insert("remediation".into(), json!({ "desc": next }));
    }
    if alert.late {
        fields.insert("status_detail".into(), json!("The newest event came after its window had been judged."));
    }
    finding
}

fn metadata(alert: &Alert) -> Value {
    json!({
        "version": SCHEMA_VERSION,
        "profiles": ["cloud"],
        "uid": alert.id,
        "correlation_uid": alert.incident,
        "labels": alert.rule.tags,
        "product": { "name": "Trailwarden", "vendor_name": "Trailwarden", "version": env!("CARGO_PKG_VERSION") },
    })
}

fn cloud(alert: &Alert, account_name: Option<&str>) -> Value {
    let mut cloud = json!({ "provider": "AWS" });
    if !alert.region.is_empty() {
        cloud["region"] = json!(alert.region);
    }
    if !alert.account.is_empty() {
        cloud["account"] = json!({ "uid": alert.account, "type_id": 10, "type": "AWS Account" });
        if let Some(name) = account_name {
            cloud["account"]["name"] = json!(name);
        }
    }
    cloud
}

fn finding_info(alert: &Alert) -> Value {
    let rule = &alert.rule;
    let mut info = json!({
        "uid": alert.id,
        "title": rule.title,
        "analytic": { "type_id": 1, "type": "Rule", "uid": rule.id, "name": rule.title },
        "last_seen_time": alert.time_ms,
        "types": pillars(rule),
    });
    let fields = info.as_object_mut().expect("made as an object above");
    if !rule.description.is_empty() {
        fields.insert("desc".into(), json!(rule.description));
    }
    insert_filled(fields, "attacks", attacks(rule));
    let related = alert.events.iter().filter(|e| !e.id.is_empty()).map(|e| json!({ "uid": e.id })).collect();
    insert_filled(fields, "related_events", related);
    if fields.get("types").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        fields.remove("types");
    }
    info
}

fn pillars(rule: &RuleInfo) -> Vec<&str> {
    rule.tags.iter().filter_map(|t| t.strip_prefix("pillar.")).collect()
}

/// `attack.t1078.004` names a sub-technique of T1078.
fn attacks(rule: &RuleInfo) -> Vec<Value> {
    let techniques = rule.tags.iter().filter_map(|t| t.strip_prefix("attack.")).filter(|t| is_technique(t));
    let attack = |id: &str| {
        let id = id.to_ascii_uppercase();
        match id.split_once('.') {
            Some((technique, _)) => json!({ "technique": { "uid": technique }, "sub_technique": { "uid": id } }),
            None => json!({ "technique": { "uid": id } }),
        }
    };
    techniques.map(attack).collect()
}

fn is_technique(tag: &str) -> bool {
    let digits = tag.strip_prefix(['t', 'T']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn evidence(event: &EventRef) -> Value {
    let mut evidence = json!({ "uid": event.id, "data": { "time": event.time, "source": event.source, "name": event.name } });
    if !event.name.is_empty() && event.source.ends_with(".amazonaws.com") {
        evidence["api"] = json!({ "operation": event.name, "service": { "name": event.source } });
    }
    evidence
}

fn observable(name: &str, value: &str) -> Value {
    let (type_id, kind) = match name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "sourceipaddress" | "src_ip" | "client_ip" if value.parse::<std::net::IpAddr>().is_ok() => (2, "IP Address"),
        "username" | "user" | "db_user" => (4, "User Name"),
        "arn" => (10, "Resource UID"),
        "accesskeyid" => (19, "User Credential ID"),
        "accountid" | "account" => (35, "Account Object: uid"),
        _ => (99, "Other"),
    };
    json!({ "name": name, "value": value, "type_id": type_id, "type": kind })
}

fn insert_filled(fields: &mut Map<String, Value>, name: &str, values: Vec<Value>) {
    if !values.is_empty() {
        fields.insert(name.into(), Value::Array(values));
    }
}

fn severity_id(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 2,
        Level::Medium => 3,
        Level::High => 4,
        Level::Critical => 5,
    }
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::Informational => "Informational",
        Level::Low => "Low",
        Level::Medium => "Medium",
        Level::High => "High",
        Level::Critical => "Critical",
    }
}
