//! Policies, engines, addresses, callers.

use super::*;
use crate::event::{AccountId, Body, Context, Kind, LogSource, Routing, json};

fn derive(text: &str, name: &str) -> Vec<String> {
    derive_among(&[], text, name)
}

fn derive_among(own: &[&AccountId], text: &str, name: &str) -> Vec<String> {
    let mut schema = Schema::new();
    schema.own_accounts = own.iter().map(|account| **account).collect();
    sources(mask(name)).for_each(|s| {
        schema.add(s);
    });
    let field = schema.add(name);
    let mut slots = Slots::default();
    json::fill(text.as_bytes(), &schema, &mut slots).unwrap();
    let event = Event {
        kind: Kind::CloudTrail,
        logsource: LogSource::default(),
        body: Body::Plain(text.as_bytes()),
        context: Context::default(),
        routing: Routing::default(),
        forged: false,
    };
    fill(&schema, &event, text.as_bytes(), &mut slots, mask(name), &mut Scratch::default());
    slots.get(field).map(|v| String::from_utf8(slots.text(text.as_bytes(), v).unwrap().to_vec()).unwrap()).collect()
}

fn check_policy(policy: &str, name: &str, expected: &[&str]) {
    let inside = serde_json::to_string(policy).unwrap();
    for document in [inside.as_str(), policy] {
        let event = format!(r#"{{"recipientAccountId":"111122223333","requestParameters":{{"policy":{document}}}}}"#);
        assert_eq!(derive(&event, &format!("derived.policy.{name}")), expected, "{policy}");
    }
}

#[test]
fn policies_grant() {
    let open = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}]}"#;
    check_policy(open, "public", &["true"]);
    check_policy(open, "root_present", &["false"]);
    check_policy(open, "admin", &["true"]);
    let star = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":"kms:Decrypt","Resource":"*","Condition":{"StringEquals":{"kms:CallerAccount":"111122223333","kms:ViaService":"rds"}}}}"#;
    check_policy(star, "public", &[]);
    check_policy(star, "condition", &["kms:CallerAccount", "kms:ViaService"]);
    check_policy(&star.replace("StringEquals", "StringNotEquals"), "public", &["true"]);
    check_policy(&star.replace("kms:CallerAccount", "aws:SourceIp").replace(r#""111122223333""#, r#""0.0.0.0/0""#), "public", &["true"]);
    check_policy(&open.replace("Allow", "Deny"), "public", &[]);
    let by_address = star.replace("kms:CallerAccount", "aws:SourceIp").replace(r#""111122223333""#, r#""203.0.113.9/32""#);
    check_policy(&by_address, "public", &[]);
    check_policy(&by_address, "public_by_address", &["true"]);
    check_policy(&by_address.replace("kms:ViaService", "aws:PrincipalOrgID"), "public_by_address", &[]);
    check_policy(star, "public_by_address", &[]);
    // Everyone, and a condition that names a stranger.
    let stranger = star.replace(r#""kms:CallerAccount":"111122223333""#, r#""kms:CallerAccount":["111122223333","999988887777"]"#);
    check_policy(&stranger, "public", &[]);
    check_policy(&stranger, "foreign_account", &["999988887777"]);
    let role = star.replace(r#""kms:CallerAccount":"111122223333""#, r#""aws:PrincipalArn":"arn:aws:iam::999988887777:role/*""#);
    check_policy(&role, "foreign_account", &["999988887777"]);
    check_policy(star, "foreign_account", &[]);
    // Conditions that narrow nothing.
    for arn in [r#""arn:aws:iam::*:role/*""#, r#"["*"]"#] {
        let wide = star.replace(r#""kms:CallerAccount":"111122223333""#, &format!(r#""aws:PrincipalArn":{arn}"#));
        check_policy(&wide, "public", &["true"]);
    }
    let but_one = open.replace(r#""Principal":"*""#, r#""NotPrincipal":{"AWS":"arn:aws:iam::111122223333:user/x"}"#);
    check_policy(&but_one, "public", &["true"]);
    check_policy(&but_one.replace("Allow", "Deny"), "public", &[]);
    let mixed = r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:root","arn:aws:iam::999988887777:user/x","444455556666"]},"Action":"kms:Decrypt","Resource":"*"},{"Effect":"Allow","Principal":{"Service":"rds.amazonaws.com"},"Action":"*","Resource":"arn:x"}]}"#;
    check_policy(mixed, "foreign_account", &["999988887777", "444455556666"]);
    check_policy(mixed, "foreign_principal", &["arn:aws:iam::999988887777:user/x", "444455556666"]);
    check_policy(mixed, "root_present", &["true"]);
    check_policy(mixed, "admin", &[]);
    assert_eq!(derive(r#"{"requestParameters":{"policy":"{\"Statement\":["}}"#, "derived.policy.unreadable"), ["true"]);
}

#[test]
fn an_external_id_excuses_only_its_own_statement() {
    let trust = r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"a1"}}},{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::999988887777:root"},"Action":"sts:AssumeRole"}]}"#;
    check_policy(trust, "foreign_account", &["444455556666", "999988887777"]);
    check_policy(trust, "foreign_unasked", &["999988887777"]);
    check_policy(&trust.replace("StringEquals", "StringNotEquals"), "foreign_unasked", &["444455556666", "999988887777"]);
    let loads = trust.replace("444455556666", "127311923021");
    check_policy(&loads, "foreign_account", &["127311923021", "999988887777"]);
    let bucket = format!(r#"{{"recipientAccountId":"111122223333","requestParameters":{{"bucketPolicy":{loads}}}}}"#);
    assert_eq!(derive(&bucket, "derived.policy.foreign_account"), ["999988887777"]);
}

#[test]
fn addresses_and_callers() {
    for (address, class) in [
        ("203.0.113.9", "public"),
        ("10.1.2.3", "private"),
        ("::ffff:10.1.2.3", "private"),
        ("rds.amazonaws.com", "aws-service"),
        ("AWS Internal", "internal"),
        ("2001:db8::1", "public"),
        ("fd00::1", "private"),
    ] {
        assert_eq!(derive(&format!(r#"{{"sourceIPAddress":"{address}"}}"#), "derived.source.network"), [class], "{address}");
    }
    for (address, block) in
        [("203.0.113.9", Some("203.0.0.0/16")), ("2001:db8::1", Some("2001:db8::/32")), ("10.0.0.1", None), ("rds.amazonaws.com", None)]
    {
        let found = derive(&format!(r#"{{"sourceIPAddress":"{address}"}}"#), "derived.source.block");
        assert_eq!(found, Vec::from_iter(block), "{address}");
    }
    let session = r#"{"userIdentity":{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/app/x","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/app"}}}}"#;
    assert_eq!(derive(session, "derived.principal.arn"), ["arn:aws:iam::1:role/app"]);
    assert_eq!(derive(r#"{"userIdentity":{"arn":"arn:aws:iam::1:user/jo"}}"#, "derived.principal.arn"), ["arn:aws:iam::1:user/jo"]);
    for (identity, kind) in [
        (r#""type":"IAMUser""#, "person"),
        (r#""type":"IAMUser","invokedBy":"backup.amazonaws.com""#, "service"),
        (r#""type":"IAMUser","invokedBy":"cloudformation.amazonaws.com""#, "workload"),
        (r#""type":"IAMUser","invokedBy":"ssm.amazonaws.com""#, "person"),
        (r#""type":"AssumedRole","principalId":"AROAX:i-0123456789abcdef0""#, "workload"),
        (r#""type":"AssumedRole","principalId":"AROAX:ci""#, "role"),
        (r#""type":"AssumedRole","principalId":"AROAX:jo@example.com""#, "person"),
        (r#""type":"AssumedRole","principalId":"AROAX:jo","sessionContext":{"attributes":{"mfaAuthenticated":"true"}}"#, "person"),
        (
            r#""type":"AssumedRole","principalId":"AROAX:jo","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_1"}}"#,
            "person",
        ),
        (r#""type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_1/jo""#, "person"),
        (r#""type":"AWSAccount""#, "role"),
        (r#""accountId":"1""#, "unknown"),
    ] {
        assert_eq!(derive(&format!(r#"{{"userIdentity":{{{identity}}}}}"#), "derived.principal.kind"), [kind], "{identity}");
    }
    for (address, kind) in
        [("backup.amazonaws.com", "service"), ("cloudformation.amazonaws.com", "workload"), ("AWS Internal", "role"), ("203.0.113.9", "role")]
    {
        let event = format!(r#"{{"userIdentity":{{"type":"AssumedRole","principalId":"AROAX:x"}},"sourceIPAddress":"{address}"}}"#);
        assert_eq!(derive(&event, "derived.principal.kind"), [kind], "{address}");
    }
    let own = r#""recipientAccountId":"111122223333","requestParameters""#;
    for (parameters, accounts) in [
        (r#"{"valuesToAdd":["111122223333","999988887777","all"]}"#, &["999988887777"][..]),
        (r#"{"valuesToAdd":"arn:aws:kms:eu-west-1:444455556666:key/1234abcd-12ab-34cd-56ef-123456789012"}"#, &["444455556666"]),
        (r#"{"valuesToAdd":["arn:aws:organizations::444455556666:ou/o-a1/ou-b2"]}"#, &[]),
        (r#"{"valuesToAdd":"arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-123456789012"}"#, &[]),
        (r#"{"other":"999988887777"}"#, &[]),
    ] {
        assert_eq!(derive(&format!("{{{own}:{parameters}}}"), "derived.foreign_account.requestParameters.valuesToAdd"), accounts, "{parameters}");
    }
    assert_eq!(derive(r#"{"responseElements":{"engine":"docdb"}}"#, "derived.engine"), ["docdb"]);
    assert_eq!(derive(r#"{"responseElements":null}"#, "derived.engine"), [""; 0]);
}

#[test]
fn an_agent_makes_no_machine_of_a_person() {
    let check = |identity: &str, kind: &str| {
        for agent in ["APN/1.0 HashiCorp/1.0 Terraform/1.9.5", "Boto3/1.34 exec-env/AWS_Lambda_python3.12"] {
            let event = format!(r#"{{"userIdentity":{{{identity}}},"userAgent":"{agent}"}}"#);
            assert_eq!(derive(&event, "derived.principal.kind"), [kind], "{identity} {agent}");
        }
    };
    check(r#""type":"IAMUser","arn":"arn:aws:iam::1:user/mallory""#, "person");
    check(r#""type":"IAMUser","arn":"arn:aws:iam::1:user/ci/terraform-eu""#, "workload");
    check(r#""type":"Root","arn":"arn:aws:iam::1:root""#, "person");
    check(r#""type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/Admin/terraform""#, "role");
    check(r#""type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/orders-ci/x""#, "workload");
    check(r#""type":"AssumedRole","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/service-role/rotate-orders"}}"#, "workload");
    check(r#""type":"AssumedRole","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::1:role/Specifics"}}"#, "role");
}

#[test]
fn a_session_without_an_issuer_still_has_a_role() {
    for (arn, principal) in [
        ("arn:aws:sts::1:assumed-role/app/x", "arn:aws:iam::1:role/app"),
        ("arn:aws-cn:sts::1:assumed-role/app/y", "arn:aws-cn:iam::1:role/app"),
        ("arn:aws:sts::1:federated-user/jo", "arn:aws:sts::1:federated-user/jo"),
    ] {
        assert_eq!(derive(&format!(r#"{{"userIdentity":{{"type":"AssumedRole","arn":"{arn}"}}}}"#), "derived.principal.arn"), [principal]);
    }
}

#[test]
fn an_own_account_excuses_no_stranger_beside_it() {
    let own = [b"444455556666"];
    let shared = r#"{"recipientAccountId":"111122223333","requestParameters":{"valuesToAdd":["444455556666","999988887777"]}}"#;
    assert_eq!(derive_among(&own, shared, "derived.foreign_account.requestParameters.valuesToAdd"), ["999988887777"]);
    let policy = r#"{"recipientAccountId":"111122223333","requestParameters":{"policy":{"Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::444455556666:root","999988887777"]},"Action":"*","Resource":"*"}]}}}"#;
    assert_eq!(derive_among(&own, policy, "derived.policy.foreign_account"), ["999988887777"]);
    assert_eq!(derive_among(&own, policy, "derived.policy.foreign_principal"), ["999988887777"]);
}
