//! Rule sets for benches and differential tests: the public Sigma set where it is there, and synthetic rules in its manner.
//!
//! In: a folder, a count. Out: rules, and their YAML for other engines. Invariant: the same count gives the same rules.
#![allow(dead_code)]

use std::{fs, path::Path, sync::Arc};

use trailwarden::rule::{
    Lists,
    ast::{Document, Rule},
    sigma,
};

/// The public rule that matches every call by a role.
pub const FLOOD: &str = "aws_sts_assumerole_misuse.yml";

/// The plain rules of one text; panics on errors, which other tests are about.
pub fn parse(name: &str, text: &str) -> Vec<Rule> {
    let parsed = sigma::parse(&Arc::from(name), text, &Lists::default());
    let errors: Vec<String> = parsed.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.one_line(text)).collect();
    assert!(errors.is_empty(), "{name}: {errors:?}");
    let rule = |document| if let Document::Rule(rule) = document { Some(rule) } else { None };
    parsed.documents.into_iter().filter_map(rule).collect()
}

/// File names and texts of a folder and its sub-folders, in order; detectors' cases are none.
pub fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            found.extend(texts(&path));
        } else if name.ends_with(".yml") && !name.ends_with(".cases.yml") {
            found.push((name, fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))));
        }
    }
    found.sort();
    found
}

pub fn parse_all(texts: &[(String, String)]) -> Vec<Rule> {
    texts.iter().flat_map(|(name, text)| parse(name, text)).collect()
}

pub fn id(rule: &Rule) -> &str {
    rule.meta.id.as_ref().map_or(rule.meta.title.value.as_str(), |id| &id.value)
}

const SERVICES: [&str; 24] = [
    "rds",
    "dynamodb",
    "kms",
    "secretsmanager",
    "backup",
    "elasticache",
    "memorydb",
    "redshift",
    "ec2",
    "iam",
    "s3",
    "lambda",
    "logs",
    "monitoring",
    "cloudtrail",
    "config",
    "sts",
    "ssm",
    "ecs",
    "eks",
    "guardduty",
    "kinesis",
    "organizations",
    "route53",
];
const VERBS: [&str; 12] = ["Create", "Delete", "Modify", "Put", "Update", "Disable", "Enable", "Attach", "Detach", "Restore", "Stop", "Copy"];
const NOUNS: [&str; 20] = [
    "DBInstance",
    "DBCluster",
    "Snapshot",
    "Key",
    "KeyPolicy",
    "Secret",
    "Vault",
    "Trail",
    "Detector",
    "Role",
    "User",
    "Policy",
    "Table",
    "Bucket",
    "Function",
    "Cluster",
    "Stream",
    "Group",
    "Alarm",
    "Endpoint",
];
/// Calls that the corpus is full of: rules on them can't be dismissed by name alone.
const FREQUENT: [(&str, &str); 8] = [
    ("rds", "DescribeDBInstances"),
    ("secretsmanager", "GetSecretValue"),
    ("kms", "Decrypt"),
    ("sts", "AssumeRole"),
    ("dynamodb", "DescribeTable"),
    ("ec2", "DescribeInstances"),
    ("iam", "GetRole"),
    ("s3", "GetBucketPolicy"),
];
/// One more condition each; none of them holds for the corpus.
const EXTRAS: [&str; 12] = [
    "userAgent|contains: 'sqlmap-{n}'",
    "userAgent|startswith: 'Pacu/{n}'",
    "requestParameters.policyDocument|contains: '\"*:{n}\"'",
    "errorCode: 'Client.Unauthorized{n}'",
    "userIdentity.type: 'FederatedUser{n}'",
    "userIdentity.arn|endswith: ':user/ghost-{n}'",
    "requestParameters.publiclyAccessible: 'true'\n        requestParameters.port: '{n}'",
    "sourceIPAddress|cidr: '100.{n}.0.0/16'",
    "userIdentity.arn|re: '^arn:aws:iam::[0-9]{12}:user/(tmp|test)-{n}$'",
    "requestParameters.name|contains|all:\n            - 'exfil'\n            - '{n}'",
    "responseElements.status: 'nope-{n}'",
    "userIdentity.sessionContext.sessionIssuer.userName|contains: 'intruder{n}'",
];

/// `count` rules that the corpus never matches, shaped as the public ones are: most name a service and an action, some a few
/// actions and one more condition, one in ten an action that every estate calls all day.
pub fn synthetic(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("synthetic_{n:04}.yml"), synthetic_rule(n))).collect()
}

fn synthetic_rule(n: usize) -> String {
    // Spread by odd steps, so that neighbours differ in every part.
    let (service, verb, noun) = (SERVICES[n * 7 % SERVICES.len()], VERBS[n * 5 % VERBS.len()], NOUNS[(n * 11 + n / 20) % NOUNS.len()]);
    let extra = EXTRAS[n % EXTRAS.len()].replace("{n}", &(n % 250).to_string());
    let selection = match n % 10 {
        0 => {
            let (service, name) = FREQUENT[n / 10 % FREQUENT.len()];
            format!("        eventSource: {service}.amazonaws.com\n        eventName: {name}\n        {extra}\n")
        }
        1 | 2 => format!(
            "        eventSource: {service}.amazonaws.com\n        eventName:\n            - {verb}{noun}{n}\n            - {verb}{noun}{n}V2\n        {extra}\n"
        ),
        3 => format!("        eventName|startswith: '{verb}{noun}Zone{n}'\n        {extra}\n"),
        _ => format!("        eventSource: {service}.amazonaws.com\n        eventName: {verb}{noun}{n}\n"),
    };
    let filter = if n % 4 == 1 { "    filter:\n        userIdentity.invokedBy: 'cloudformation.amazonaws.com'\n" } else { "" };
    let condition = if filter.is_empty() { "selection" } else { "selection and not filter" };
    format!(
        "title: Synthetic {n}\nid: 00000000-0000-4000-8000-{n:012}\nstatus: test\nlogsource:\n    product: aws\n    service: cloudtrail\ndetection:\n    selection:\n{selection}{filter}    condition: {condition}\nlevel: low\n"
    )
}
