//! `check --config FILE`, run as people run it: before a deploy, offline.
//!
//! In: config files, good and wrong. Out: exit codes, findings with their places. Invariant: no value of a variable is in what is told.

use std::{
    fs,
    process::{Command, Output},
};

const KEY: &str = "0123456789abcdefCANARY9abcdefCAN";
const RULE: &str = "title: Trail stopped by a stranger
id: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c12
level: high
description: A trail was stopped, and not by one of ours.
tags: [attack.t1562.008, pillar.monitoring, service.cloudtrail]
logsource: {product: aws, service: cloudtrail}
detection:
  selection: {eventSource: cloudtrail.amazonaws.com, eventName: StopLogging}
  filter_ours:
    userIdentity.arn|expand: '%platform_team%'
  condition: selection and not 1 of filter_*
";
const GOOD: &str = "kinesis: {streams: [audit]}
sinks:
  pager:
    pagerduty: {routing_key: '${PAGERDUTY_KEY}'}
";

/// Runs on a folder with `c.yml` and `rules/a.yml`.
fn check(config: &str, rule: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.yml"), config).unwrap();
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join("rules/a.yml"), rule).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(["check", "--config", "c.yml"]).args(arguments).current_dir(folder.path());
    let Output { status, stdout, stderr } = command.env("PAGERDUTY_KEY", KEY).env_remove("NO_SUCH_VARIABLE").output().unwrap();
    let (said, told) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(!format!("{said}{told}").contains("CANARY"), "{said}{told}");
    (status.code().unwrap(), said, told)
}

#[test]
fn a_good_file_passes() {
    let (code, said, told) = check(GOOD, RULE, &[]);
    assert!(code == 0 && told.is_empty(), "{code} {told}");
    assert!(said.contains(" rules, ") && said.ends_with(": 0 errors, 0 warnings\n"), "{said}");
    let own = format!("{GOOD}rules:\n  folders: [rules]\n  lists: {{platform_team: ['arn:aws:iam::111122223333:role/platform']}}\n");
    assert_eq!(check(&own, RULE, &["--strict"]), (0, "1 rule, 0 correlations, 0 filters: 0 errors, 0 warnings\n".into(), String::new()));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (line, expected) in [
        ("rulez: {folders: [x]}", &["c.yml:5:1", "unknown key `rulez`", "did you mean `rules`?"][..]),
        ("state: {quota_item: 5}", &["c.yml:5:9", "unknown key `quota_item`", "did you mean `quota_items`?"]),
        ("admin: {token: '${NO_SUCH_VARIABLE}'}", &["c.yml:5:16", "the environment has no variable `NO_SUCH_VARIABLE`"]),
        ("admin: {token: '${file:/no/such/file}'}", &["c.yml:5:16", "the file `/no/such/file` can't be read"]),
        ("  chat: {slack: {url: 'ftp://hooks.example/x'}}", &["c.yml:5:23", "not an address like https://host/path"]),
        ("  hook: {webhook: {url: 'hooks.example/x'}}", &["c.yml:5:25", "https://"]),
        ("  hook: {webhook: {url: 'http://hooks.example/x'}}", &["c.yml:5:25", "use https"]),
        ("  topic: {sns: {topic_arn: 'arn:aws:sqs:eu-west-1:1:x'}}", &["c.yml:5:17", "topic_arn"]),
        ("routing: {routes: [{sinks: [pagr]}]}", &["c.yml:5:1", "no sink is called `pagr`; there are: pager"]),
        ("kinesis: {streams: []}", &["c.yml:5:1"]),
        ("rules: {profile: quite}", &["c.yml:5:18", "did you mean `quiet`?"]),
        ("rules: {folders: [nowhere]}", &["nowhere"]),
    ] {
        let (code, said, told) = check(&format!("{GOOD}{line}\n"), RULE, &[]);
        assert_eq!(code, 2, "{line}\n{told}");
        for part in expected {
            assert!(told.contains(part), "{part} in\n{told}{said}");
        }
    }
    assert_eq!(check("kinesis: [", RULE, &[]).0, 2);
    let absent = Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["check", "--config", "/no/such.yml"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("/no/such.yml"));
}

/// A list's name that is mistyped, in the config or in a rule, silently filters nothing: so both are told, each with what was meant.
#[test]
fn lists_and_rules_must_know_each_other() {
    let lists = |list: &str| format!("{GOOD}rules:\n  folders: [rules]\n  lists:\n    own_accounts: ['111122223333']\n    {list}: [x]\n");
    for (list, rule, expected) in [
        (
            "platform_teem",
            RULE,
            &[
                "c.yml:9:5: warning: no rule uses the list `platform_teem` (did you mean `platform_team`?)",
                "a.yml:10:30: warning: no list `platform_team`: this value never matches (did you mean `%platform_teem%`?)",
            ][..],
        ),
        ("canaries", &RULE.replace("%platform_team%", "%own_accounts%"), &["c.yml:9:5: warning: no rule uses the list `canaries`"]),
        ("backup_principals", &RULE.replace("%platform_team%", "%own_accounts%"), &["c.yml:9:5: warning: no rule uses the list `backup_principals`"]),
    ] {
        let (code, said, told) = check(&lists(list), rule, &["--short"]);
        assert_eq!((code, told.lines().count()), (0, expected.len()), "{told}");
        for part in expected {
            assert!(told.contains(part), "{part} in\n{told}{said}");
        }
        assert_eq!(check(&lists(list), rule, &["--strict"]).0, 1);
    }
    let (_, _, told) = check(&lists("platform_teem"), RULE, &[]);
    assert!(told.contains("9 │     platform_teem: [x]") || told.contains("    platform_teem: [x]"), "the line is shown:\n{told}");
}
