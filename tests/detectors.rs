//! The detectors as a whole: judged scenarios, real attack traces, techniques that exist, no event told twice for one reason.
//!
//! In: `tests/judged`, the detectors' own cases, the shared traces where they are there. Out: what is missed, told in vain or told
//! twice. Invariant: every scenario of `attacks.jsonl` is found and none of `benign.jsonl` is, in the standard profile.

#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    process::Command,
    sync::Arc,
};

use serde_json::{Map, Value, json};
use trailwarden::rule::{
    Input, Loaded, Options,
    ast::{Meta, Profile},
    builtin, cases, coverage, load,
};

const START: &str = "2026-03-03T10:00:00Z";
const ACCOUNT: &str = "111122223333";

/// Ids of events, each to the scenario or case that it is of.
type Owners = HashMap<String, String>;

/// The scenarios of a file of database logs and what was told of each: the messages of one log stream, in an account of its own.
fn judge_logs(file: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judged").join(file)).unwrap();
    let (mut envelopes, mut names) = (Vec::new(), BTreeMap::new());
    for (index, line) in text.lines().enumerate() {
        let scenario: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{file}:{}: {e}", index + 1));
        let account = format!("{:012}", 300_000_000_000 + index);
        let message = |(at, text): (usize, &Value)| json!({"id": format!("{index:028}{at:028}"), "timestamp": 1_795_514_400_000_u64 + at as u64, "message": text});
        let messages: Vec<Value> = scenario["messages"].as_array().unwrap().iter().enumerate().map(message).collect();
        envelopes.push(json!({
            "messageType": "DATA_MESSAGE", "owner": account, "logGroup": scenario["group"], "logStream": "s", "subscriptionFilters": ["f"], "logEvents": messages,
        }));
        names.insert(account, (scenario["name"].as_str().unwrap().to_owned(), Vec::new()));
    }
    for finding in findings(&envelopes, "standard") {
        let told = names.get_mut(finding["account"].as_str().unwrap()).expect("an account of ours");
        told.1.push(finding["rule"]["title"].as_str().unwrap().to_owned());
    }
    names.into_values().collect()
}

/// What a scan of these events finds.
fn findings(events: &[Value], profile: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("events.ndjson");
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    fs::write(&file, lines.join("\n")).expect("the folder can be written to");
    let scan = Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["scan", "--format", "json", "--profile", profile]).arg(&file).output();
    let scan = scan.expect("it starts");
    assert_eq!(scan.status.code(), Some(0), "{}", String::from_utf8_lossy(&scan.stderr));
    String::from_utf8_lossy(&scan.stdout).lines().map(|line| serde_json::from_str(line).expect("a finding is JSON")).collect()
}

/// Rules and titles that were told, by the scenario's name.
fn scan(events: &[Value], owners: &Owners, profile: &str) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut told: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for finding in findings(events, profile) {
        let rule = (finding["rule"]["id"].as_str().unwrap().to_owned(), finding["rule"]["title"].as_str().unwrap().to_owned());
        for event in finding["events"].as_array().unwrap() {
            if let Some(owner) = event["id"].as_str().and_then(|id| owners.get(id)) {
                told.entry(owner.clone()).or_default().insert(rule.clone());
            }
        }
    }
    told
}

/// One call of a scenario as CloudTrail records it; the time is the test's `second`.
fn record(call: &Value, callers: &Value, second: usize, id: &str) -> Value {
    let who = &callers["identities"][call["who"].as_str().unwrap()];
    assert!(who.is_object(), "who is {}?", call["who"]);
    let (source, name) = (call["source"].as_str().unwrap(), call["name"].as_str().unwrap());
    let agent = call["agent"].as_str().unwrap_or("cli");
    let caller = who["invokedBy"].as_str();
    let reads = ["Get", "List", "Describe", "Lookup", "Head", "Batch", "Select", "Scan", "Query", "Decrypt", "Generate", "Download", "Assume"];
    let mut event = json!({
        "eventVersion": "1.09",
        "userIdentity": who,
        "eventTime": START.replace("00:00Z", &format!("{:02}:{:02}Z", second / 60 % 60, second % 60)),
        "eventSource": format!("{source}.amazonaws.com"),
        "eventName": name,
        "awsRegion": call["region"].as_str().unwrap_or("eu-west-1"),
        "sourceIPAddress": caller.or(call["address"].as_str()).unwrap_or("198.51.100.77"),
        "userAgent": caller.unwrap_or(callers["agents"][agent].as_str().unwrap_or(agent)),
        "requestParameters": call["request"],
        "responseElements": call["response"],
        "eventID": id,
        "readOnly": reads.iter().any(|verb| name.starts_with(verb)),
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
    });
    if let Some(code) = call["error"].as_str() {
        event["errorCode"] = code.into();
        event["errorMessage"] = "not authorized to perform this".into();
    }
    for (key, value) in call["more"].as_object().unwrap_or(&Map::new()) {
        event[key] = value.clone();
    }
    event
}

/// The scenarios of a file and what was told of each. Every one has an account of its own, so that none sees another's state.
fn judge(file: &str) -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judged");
    let callers: Value = serde_json::from_str(&fs::read_to_string(folder.join("callers.json")).unwrap()).unwrap();
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let (mut events, mut owners, mut names) = (Vec::new(), Owners::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let scenario: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{file}:{}: {e}", index + 1));
        let name = scenario["name"].as_str().unwrap().to_owned();
        let mut second = 0;
        for call in scenario["calls"].as_array().unwrap() {
            for _ in 0..call["times"].as_u64().unwrap_or(1) {
                let id = format!("{file}-{index}-{second}");
                let event = record(call, &callers, second, &id).to_string().replace(ACCOUNT, &format!("{:012}", 100_000_000_000 + index));
                events.push(serde_json::from_str(&event).unwrap());
                owners.insert(id, name.clone());
                second += 1;
            }
        }
        names.push(name);
    }
    let mut told = scan(&events, &owners, "standard");
    let titles = |rules: BTreeSet<(String, String)>| rules.into_iter().map(|rule| rule.1).collect();
    names.into_iter().map(|name| (name.clone(), titles(told.remove(&name).unwrap_or_default()))).collect()
}

#[test]
fn attacks_are_found() {
    let judged = judge("attacks.jsonl").into_iter().chain(judge_logs("attack_logs.jsonl"));
    let missed: Vec<String> = judged.filter(|(_, told)| told.is_empty()).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not found: {missed:#?}");
}

#[test]
fn daily_work_is_left_alone() {
    let judged = judge("benign.jsonl").into_iter().chain(judge_logs("benign_logs.jsonl"));
    let told: Vec<(String, Vec<String>)> = judged.filter(|(_, told)| !told.is_empty()).collect();
    assert!(told.is_empty(), "told in vain: {told:#?}");
}

/// Traces that touch no credentials, keys, secrets, logging, snapshots or databases.
const OTHER_TRACES: [&str; 6] = [
    "aws.execution.ec2-launch-unusual-instances",
    "aws.execution.ec2-user-data",
    "aws.execution.ssm-send-command",
    "aws.impact.bedrock-invoke-model",
    "aws.persistence.lambda-layer-extension",
    "aws.persistence.lambda-overwrite-code",
];

#[test]
fn real_attack_traces_are_found() {
    let Some(folder) = tools::shared("samples/cloudtrail_stratus") else { return };
    let (mut events, mut owners, mut names) = (Vec::new(), Owners::new(), BTreeSet::new());
    for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if OTHER_TRACES.contains(&name.as_str()) {
            continue;
        }
        let trace: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for mut event in trace.as_array().unwrap().clone() {
            // The tool's own name is no evidence.
            event["userAgent"] = "aws-cli/2.15.30".into();
            owners.insert(event["eventID"].as_str().unwrap().to_owned(), name.clone());
            events.push(event);
        }
        names.insert(name);
    }
    let told = scan(&events, &owners, "standard");
    let missed: Vec<&String> = names.iter().filter(|name| !told.contains_key(*name)).collect();
    assert!(names.len() > 20 && missed.is_empty(), "{} traces, not found: {missed:#?}", names.len());
}

/// The built-in detectors of all profiles.
fn everything() -> Loaded {
    load(&[Input::Builtin], &Options { profile: Profile::Paranoid, ..Options::default() })
}

/// The built-in detectors' names and what is said of them.
fn metas() -> Vec<(bool, Meta)> {
    everything().set.metas().map(|(meta, role)| (role.alerts, meta.clone())).collect()
}

fn tags<'m>(meta: &'m Meta, namespace: &'m str) -> impl Iterator<Item = &'m str> {
    meta.tags.iter().filter_map(move |tag| tag.value.strip_prefix(namespace))
}

#[test]
fn techniques_exist() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/techniques.txt")).unwrap();
    let mut known = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let technique = words.next().unwrap().to_lowercase();
        known.extend(words.map(|sub| format!("{technique}{sub}")));
        known.insert(technique);
    }
    assert!(known.len() > 600);
    let mut wrong = Vec::new();
    for (alerts, meta) in metas() {
        let used: Vec<&str> = tags(&meta, "attack.t").filter(|id| id.starts_with(|first: char| first.is_ascii_digit())).collect();
        wrong.extend(used.iter().filter(|id| !known.contains(&format!("t{id}"))).map(|id| format!("{}: t{id}", meta.title.value)));
        if alerts && used.is_empty() {
            wrong.push(format!("{}: no technique", meta.title.value));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_cell_of_the_matrix_is_empty() {
    let loaded = everything();
    let coverage = coverage::coverage(&loaded.set);
    let services = ["rds", "aurora", "dynamodb", "elasticache", "memorydb", "neptune", "documentdb", "redshift", "keyspaces", "backup"];
    let mut empty = Vec::new();
    for service in services {
        for pillar in &coverage::PILLARS[..5] {
            if coverage.cells.get(service).and_then(|row| row.get(*pillar)).is_none() {
                empty.push(format!("{service} × {pillar}"));
            }
        }
    }
    assert!(empty.is_empty(), "{empty:#?}");
}

/// The calls of every case that must match, each with an id of its own.
fn matching_calls() -> (Vec<Value>, Owners) {
    let (mut events, mut owners) = (Vec::new(), Owners::new());
    for (name, text) in builtin::FILES.iter().filter(|(name, _)| name.ends_with(builtin::CASES)) {
        let (file, _) = cases::parse(&Arc::from(*name), text);
        for case in file.cases.iter().filter(|case| !matches!(case.expected, cases::Expected::NoMatch | cases::Expected::Alerts(0))) {
            for event in &case.events {
                let mut event: Value = serde_json::from_slice(&event.data).unwrap();
                if event.get("eventName").is_none() {
                    continue;
                }
                let id = format!("case-{}", events.len());
                event["eventID"] = id.clone().into();
                owners.insert(id, format!("{name}: {} ({})", event["eventName"], events.len()));
                events.push(event);
            }
        }
    }
    (events, owners)
}

/// Whether two rules speak of one pillar without knowing of each other.
fn may_repeat(one: &Meta, other: &Meta) -> bool {
    let related = |a: &Meta, b: &Meta| a.related.iter().any(|(id, _)| id == b.key());
    let same = tags(one, "pillar.").any(|pillar| tags(other, "pillar.").any(|p| p == pillar));
    same && !related(one, other) && !related(other, one)
}

/// Two rules of one pillar that match one event tell it twice, unless one of them says `related`.
#[test]
fn no_event_is_told_twice_for_one_reason() {
    let loaded = everything();
    let plain = loaded.set.rules.iter().filter(|rule| rule.role.alerts && rule.rule.meta.ext.state.is_none());
    let rules: HashMap<&str, &Meta> = plain.map(|rule| (rule.rule.meta.key(), &rule.rule.meta)).collect();
    let (events, owners) = matching_calls();
    let mut twice = BTreeSet::new();
    for (event, told) in scan(&events, &owners, "paranoid") {
        let told: Vec<&Meta> = told.iter().filter_map(|(id, _)| rules.get(id.as_str()).copied()).collect();
        for (at, one) in told.iter().enumerate() {
            for other in &told[at + 1..] {
                if may_repeat(one, other) {
                    twice.insert(format!("{} | {} ({event})", one.title.value, other.title.value));
                }
            }
        }
    }
    assert!(twice.is_empty(), "{twice:#?}");
}

/// The calls of every case in which a correlation must fire, each case in an account of its own, and the case of each.
fn told_sequences() -> (Vec<Value>, Owners) {
    let (mut events, mut owners, mut account) = (Vec::new(), Owners::new(), 200_000_000_000_u64);
    for (name, text) in builtin::FILES.iter().filter(|(name, _)| name.ends_with(builtin::CASES)) {
        let (file, _) = cases::parse(&Arc::from(*name), text);
        for case in file.cases.iter().filter(|case| matches!(case.expected, cases::Expected::Alerts(1..))) {
            account += 1;
            for event in &case.events {
                let text = String::from_utf8_lossy(&event.data).replace(ACCOUNT, &account.to_string());
                let mut event: Value = serde_json::from_str(&text).unwrap();
                if event.get("eventName").is_some() {
                    let id = format!("sequence-{}", events.len());
                    event["eventID"] = id.clone().into();
                    owners.insert(id, format!("{name}: {}", case.name));
                    events.push(event);
                }
            }
        }
    }
    (events, owners)
}

/// Two correlations of one pillar of which one is told by events of the other's only, unless one of them says `related`.
#[test]
fn no_sequence_is_told_twice_for_one_reason() {
    let loaded = everything();
    let told = loaded.set.correlations.iter().filter(|correlation| correlation.role.alerts);
    let metas: HashMap<&str, &Meta> = told.map(|linked| (linked.correlation.meta.key(), &linked.correlation.meta)).collect();
    let (events, owners) = told_sequences();
    let mut by_case: BTreeMap<&String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for finding in findings(&events, "paranoid") {
        let rule = finding["rule"]["id"].as_str().unwrap();
        for id in finding["events"].as_array().unwrap().iter().filter_map(|event| event["id"].as_str()) {
            if metas.contains_key(rule)
                && let Some(case) = owners.get(id)
            {
                by_case.entry(case).or_default().entry(rule.to_owned()).or_default().insert(id.to_owned());
            }
        }
    }
    let mut twice = BTreeSet::new();
    for (case, rules) in &by_case {
        for (one, seen) in rules {
            for (other, also) in rules.iter().filter(|(other, _)| *other > one) {
                if may_repeat(metas[one.as_str()], metas[other.as_str()]) && (seen.is_subset(also) || also.is_subset(seen)) {
                    twice.insert(format!("{} | {} ({case})", metas[one.as_str()].title.value, metas[other.as_str()].title.value));
                }
            }
        }
    }
    assert!(by_case.len() > 30 && twice.is_empty(), "{} cases: {twice:#?}", by_case.len());
}
