//! Tables: each kind of warning, and neighbours that must stay silent.

use super::*;
use crate::rule::{Options, Source, load_texts};

fn warnings(text: &str) -> Vec<String> {
    let loaded = load_texts(vec![Source { name: "x.yml".into(), text: text.to_owned().into() }], &Options::default());
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    let show = |found: &Diagnostic| {
        let piece = &text[found.span.start as usize..found.span.end as usize];
        format!("{} [{piece}] {}", found.message, found.hint.clone().unwrap_or_default())
    };
    lint(&loaded.set).iter().map(show).collect()
}

fn rule(level: &str, selections: &str, condition: &str) -> String {
    format!("title: x\nlevel: {level}\nlogsource: {{product: aws, service: cloudtrail}}\ndetection:\n  {selections}\n  condition: {condition}\n")
}

const SOUND: &str = "eventSource: rds.amazonaws.com, eventName: DeleteDBInstance";

#[test]
fn warnings_point_and_hint() {
    for (selections, condition, parts) in [
        ("s: {SOUND}\n  t: {eventName: x}", "s", ["selection `t` is never used", "[t]", "condition"]),
        ("s: {eventname: x}", "s", ["no CloudTrail record has the field `eventname`", "[eventname]", "case-sensitive: `eventName`"]),
        ("s: {SOUND, status: success}", "s", ["field `status`", "[status]", ""]),
        ("s: {SOUND, requestParamters.x: y}", "s", ["`requestParamters`", "[requestParamters.x]", "`requestParameters`?"]),
        ("s: {SOUND, userIdentity.useName: y}", "s", ["`userIdentity.useName`", "[userIdentity.useName]", "`userIdentity.userName`?"]),
        ("s: {SOUND, eventID.x: y}", "s", ["single value", "[eventID.x]", "test `eventID`"]),
        ("s: {SOUND, derived.polcy.public: 'true'}", "s", ["no derived field", "[derived.polcy.public]", "`derived.policy.public`?"]),
        ("s: {SOUND, errorCode: Success}", "s", ["never is `Success`", "[Success]", "errorCode: null"]),
        ("s: {eventSource: rds, eventName: DeleteDBInstance}", "s", ["never is `rds`", "[rds]", "rds.amazonaws.com"]),
        ("s: {eventSource: neptune.amazonaws.com, eventName: x}", "s", ["never is", "[neptune.amazonaws.com]", "rds.amazonaws.com"]),
        ("s: {SOUND, userIdentity.type: User}", "s", ["never is `User`", "[User]", "IAMUser"]),
        ("s: {SOUND, readOnly: 'yes'}", "s", ["never is `yes`", "['yes']", "true"]),
        (
            "s: {eventSource: s3.amazonaws.com, eventName: PutEncryptionConfiguration}",
            "s",
            ["`s3` sends no", "[PutEncryptionConfiguration]", "PutBucketEncryption"],
        ),
        (
            "s: {SOUND, requestParameters.dbInstanceIdentifier: x}",
            "s",
            ["spells this parameter", "[requestParameters.dbInstanceIdentifier]", "case-sensitive"],
        ),
        ("s: {SOUND, userIdentity.arn: requestParameters.userArn}", "s", ["with the text", "[requestParameters.userArn]", "fieldref"]),
        ("s: {SOUND, userIdentity.arn|contains: requestParameters.userArn}", "s", ["with the text", "[requestParameters.userArn]", "fieldref"]),
        (
            "s: {SOUND, userIdentity.arn|fieldref: requestParameters.userName}",
            "s",
            ["an ARN never equals", "[requestParameters.userName]", "endswith"],
        ),
        ("s: {SOUND, userIdentity.accountId: '%own_accounts%'}", "s", ["as it is", "['%own_accounts%']", "expand"]),
        ("s: {eventName: [DeleteA, deletea]}", "s", ["stands twice", "[deletea]", "letter case"]),
        ("s: {SOUND}\n  t: {eventName: x}", "s and t", ["`eventName` would need two values", "[eventName: x", "or"]),
        ("s: {SOUND}", "s and not s", ["must hold and must not", "[s and not s]", "`not`"]),
        ("s: {SOUND}\n  f: {eventName: x}", "s and not f", ["filter `f` can never apply", "[f]", "correct"]),
        (
            "s: {SOUND, errorCode: null}\n  f_a: {errorCode: x}\n  f_b: {awsRegion: x}",
            "s and not 1 of f_*",
            ["filter `f_a` can never apply", "[f_a]", "`errorCode`"],
        ),
        ("s: {userIdentity.type: AssumedRole}", "s", ["almost every event", "[s]", "eventName"]),
        ("s: {eventName: '*'}", "s", ["almost every event", "[s]", "eventName"]),
        ("s: {awsRegion: us-east-1}\n  f: {userAgent: x}", "s and not f", ["almost every event", "[s and not f]", "eventName"]),
        ("s: {SOUND}\n  t: {awsRegion: x}", "s or t", ["almost every event", "[s or t]", "eventName"]),
    ] {
        let found = warnings(&rule("low", &selections.replace("SOUND", SOUND), condition));
        assert_eq!(found.len(), 1, "{selections} / {condition}: {found:?}");
        assert!(parts.iter().all(|part| found[0].contains(part)), "{selections} / {condition}: {found:?}");
    }
}

#[test]
fn sound_rules_are_left_alone() {
    for (selections, condition) in [
        ("s: {SOUND}", "s"),
        ("s: {SOUND, errorCode: null}", "s"),
        ("s: {SOUND}\n  f: {errorCode: '?*'}", "s and not f"),
        ("s: {userIdentity.type: Root}", "s"),
        ("s: {errorCode: AccessDenied}", "s"),
        (
            "s: {SOUND, userIdentity.sessionContext.sessionIssuer.arn|contains: x, userIdentity.sessionContext.attributes.mfaAuthenticated: 'false'}",
            "s",
        ),
        ("s: {SOUND, derived.foreign_account.requestParameters.valuesToAdd: '?*', derived.policy.public: 'true'}", "s"),
        ("s: {SOUND, requestParameters.x: a}\n  t: {requestParameters.x: b}", "s and t"),
        ("s: {eventName: [a, b]}\n  t: {eventName: [b, c]}", "s and t"),
        ("s: {eventSource: [s3.amazonaws.com, x.amazonaws.com], eventName: ReplicateObject}", "s"),
        ("s: [mimikatz]", "s"),
        ("s: {SOUND}\n  t: {eventName: x}", "s or t"),
        ("s: {SOUND, resources.ARN|contains: x, additionalEventData.y: z}", "s"),
    ] {
        let found = warnings(&rule("critical", &selections.replace("SOUND", SOUND), condition));
        assert!(found.is_empty(), "{selections} / {condition}: {found:?}");
    }
}

#[test]
fn routine_calls_are_not_urgent() {
    let selection = "s: {eventSource: rds.amazonaws.com, eventName: ModifyDBCluster}";
    assert!(warnings(&rule("high", selection, "s"))[0].contains("urgent level"));
    assert!(warnings(&rule("medium", selection, "s")).is_empty());
    assert!(warnings(&rule("high", "s: {eventName: ModifyDBCluster, requestParameters.deletionProtection: 'false'}", "s")).is_empty());
}

#[test]
fn replaced_rules_and_filters_are_looked_at() {
    let text = [
        "title: new\nid: a\nrelated: [{id: b, type: obsolete}]\nlogsource: {product: redis}\ndetection: {s: {f: x}, condition: s}\n---\n",
        "title: old\nid: b\nlogsource: {product: redis}\ndetection: {s: {f: y}, condition: s}\n---\n",
        "title: f\nlogsource: {product: redis}\nfilter: {rules: any, s: {f: z}, t: {f: z}, condition: not s}\n",
    ]
    .concat();
    let found = warnings(&text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("replaces this rule [old]") && found[1].contains("selection `t` is never used"), "{found:?}");
}

#[test]
fn known_defects_of_the_public_rules_are_told() {
    let Some(folder) = crate::rule::load::tests::shared("sigma_aws/cloudtrail") else {
        return println!("left out: the public rules are not here");
    };
    let loaded = crate::rule::load(&[crate::rule::Input::Path(folder)], &Options::default());
    let found = lint(&loaded.set);
    for (file, expected) in [
        ("aws_cloudtrail_bucket_deleted", "never is `Success`"),
        ("aws_cloudtrail_guardduty_detector_deleted_or_updated", "never is `Success`"),
        ("aws_cloudtrail_ssm_malicious_usage", "never is `Success`"),
        ("aws_cloudtrail_vpc_flow_logs_deleted", "never is `Success`"),
        ("aws_delete_saml_provider", "field `status`"),
        ("aws_update_login_profile", "ARN never equals"),
        ("aws_iam_backdoor_users_keys", "with the text"),
        ("aws_route_53_domain_transferred_lock_disabled", "sends no"),
        ("aws_route_53_domain_transferred_to_another_account", "sends no"),
        ("aws_s3_data_management_tampering", "PutEncryptionConfiguration"),
        ("aws_elasticache_security_group_created", "sends no"),
        ("aws_cloudtrail_security_group_change_rds", "sends no"),
        ("aws_rds_dbcluster_actions", "urgent level"),
        ("aws_sts_assumerole_misuse", "almost every event"),
        ("aws_ec2_startup_script_change", "have no `requestParameters.attribute`"),
    ] {
        let told = found.iter().any(|found| found.file.contains(file) && found.message.contains(expected));
        assert!(told, "{file}: {expected}");
    }
}

#[test]
fn correlations_name_fields_that_their_events_have() {
    let text = |correlation: &str| {
        let base = |name: &str| rule("low", &format!("s: {{{SOUND}}}"), "s").replacen("title: x", &format!("title: {name}\nname: {name}"), 1);
        let head = "title: c\ncorrelation:\n  timespan: 10m\n  rules: [a, b]";
        format!("{}---\n{}---\n{head}\n  {}\n", base("a"), base("b"), correlation.replace('|', "\n  "))
    };
    for (correlation, parts) in [
        ("type: event_count|group-by: [sourceIpAddress]|condition: {gte: 3}", ["field `sourceIpAddress`", "[sourceIpAddress]", "`sourceIPAddress`"]),
        ("type: temporal|group-by: [userIdentity.arm]", ["`userIdentity.arm`", "[userIdentity.arm]", "`userIdentity.arn`"]),
        ("type: temporal|group-by: [who]|aliases: {who: {a: eventId, b: eventID}}", ["`eventId`", "[eventId]", "`eventID`"]),
        ("type: temporal|group-by: [who]|aliases: {who: {a: eventID}}", ["no CloudTrail record has the field `who`", "[who]", "`aliases`"]),
        ("type: value_count|group-by: [eventID]|condition: {field: derived.nothing, gte: 3}", ["no derived field", "[derived.nothing]", ""]),
    ] {
        let found = warnings(&text(correlation));
        assert_eq!(found.len(), 1, "{correlation}: {found:?}");
        assert!(parts.iter().all(|part| found[0].contains(part)), "{correlation}: {found:?}");
    }
    for sound in [
        "type: event_count|group-by: [userIdentity.arn, requestParameters.anything]|condition: {gte: 3}",
        "type: temporal|group-by: [who]|aliases: {who: {a: eventID, b: requestID}}",
    ] {
        assert_eq!(warnings(&text(sound)), Vec::<String>::new(), "{sound}");
    }
    let state = "trailwarden: {state: {type: new_value, fields: [userIdentity.arm], memory: 30d, learning: 1d}}\n";
    let found = warnings(&(rule("low", &format!("s: {{{SOUND}}}"), "s") + state));
    assert!(matches!(&found[..], [one] if one.contains("[userIdentity.arm]")), "{found:?}");
}

#[test]
fn log_sources_that_nothing_yields() {
    let of = |source: &str| warnings(&format!("title: x\nlogsource: {{{source}}}\ndetection: {{s: {{requestParameters.f: x}}, condition: s}}\n"));
    for sound in [
        "product: aws, service: cloudtrail",
        "product: aws, service: some-source-of-eventbridge",
        "category: database",
        "product: AWS, service: vpcflow, category: network",
        "product: mysql, service: audit",
        "product: mssql",
        "product: oracle, service: audit",
    ] {
        assert_eq!(of(sound), [""; 0], "{sound}");
    }
    for (source, piece) in [
        ("product: windows, service: security", "[windows]"),
        ("product: db2", "[db2]"),
        ("product: mysql, service: postgresql", "[postgresql]"),
        ("category: process_creation", "[process_creation]"),
    ] {
        let found = of(source);
        assert!(found.len() == 1 && found[0].contains(piece) && found[0].contains("never matches"), "{source}: {found:?}");
    }
}
