//! PostgreSQL's log: real samples where they are there, our own lines everywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::decode::log::{Batch, Kind, LogDecoder, Piece, Route, tax::Tax};

/// An event's fields as text.
type Fields = BTreeMap<&'static str, String>;

fn decode_with(decoder: &mut LogDecoder, text: &[u8], pieces: &[Piece], stream: u64) -> Vec<Fields> {
    let route = Route::of(Kind::Postgres);
    let mut events = Vec::new();
    decoder.decode(&Batch { route: &route, text, pieces, stream, now_ms: 0 }, |event| {
        let mut fields: Fields = event.iter().map(|(tax, value)| (tax.as_str(), String::from_utf8_lossy(value).into_owned())).collect();
        fields.insert("time", event.time_ms.unwrap_or_default().to_string());
        events.push(fields);
    });
    events
}

fn decode(text: &str) -> Vec<Fields> {
    decode_with(&mut LogDecoder::default(), text.as_bytes(), &[], 0)
}

/// Checks some fields of the only event; an empty expectation means absent.
fn check(text: &str, expected: &[(&str, &str)]) {
    let events = decode(text);
    assert_eq!(events.len(), 1, "{text}: {events:#?}");
    for (name, value) in expected {
        assert_eq!(events[0].get(*name).map_or("", |value| value), *value, "{name} of {text}\n{:#?}", events[0]);
    }
}

/// A line with the first prefix of a session.
fn session(rest: &str) -> String {
    format!("2026-11-24 02:52:55 UTC:10.0.0.7(46932):app@shop:[16223]:{rest}\n")
}

#[test]
fn prefixes() {
    for (text, expected) in [
        (session("LOG:  hi"), ["app", "shop", "10.0.0.7", "46932", "16223", "", "1795488775000"]),
        ("2026-11-24 02:52:12 UTC::@:[14523]:LOG:  hi\n".into(), ["", "", "", "", "14523", "", "1795488732000"]),
        ("2026-11-24 02:52:12 UTC:[local]:[unknown]@[unknown]:[1]:LOG: hi".into(), ["", "", "local", "", "1", "", "1795488732000"]),
        ("2026-11-24 02:52:12 UTC:::1(5432):a@b:[1]:LOG:  hi".into(), ["a", "b", "::1", "5432", "1", "", "1795488732000"]),
        (
            "2026-11-24 03:52:12 CET:db.example.com(1):joe@CORP.LOCAL@b:[1]:LOG:  hi".into(),
            ["joe@CORP.LOCAL", "b", "db.example.com", "1", "1", "", "1795488732000"],
        ),
        ("2026-11-24 03:52:12 XYZ:10.0.0.7(1):bad@user:x@d[b:[1]:LOG:  hi".into(), ["bad@user:x", "d[b", "10.0.0.7", "1", "1", "", "0"]),
        (
            "2026-11-24T02:52:13.000Z 2026-11-24 02:52:12 UTC:10.0.0.7(1):a@b:[1]:LOG:  hi".into(),
            ["a", "b", "10.0.0.7", "1", "1", "", "1795488732000"],
        ),
        (
            "2026-11-24 02:52:12.345 UTC:10.0.0.7(1):a@b:[1]:2:00000:2026-11-24 02:52:12 UTC:3/60:0:6b04fe6f.1838:my \"app\"LOG:  hi".into(),
            ["a", "b", "10.0.0.7", "1", "1", "my \"app\"", "1795488732345"],
        ),
    ] {
        let names = ["db.user", "db.name", "db.client.address", "db.client.port", "db.session.pid", "db.application", "time"];
        let pairs: Vec<_> = names.into_iter().zip(expected).chain([("db.message", "hi"), ("log.forged", "")]).collect();
        check(&text, &pairs);
    }
}

#[test]
fn logins() {
    check(
        &session(
            "LOG:  connection authorized: user=app database=shop application_name=my app SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)",
        ),
        &[
            ("db.event", "login_succeeded"),
            ("db.tls", "true"),
            ("db.tls.version", "TLSv1.3"),
            ("db.application", "my app"),
            ("db.outcome", "success"),
        ],
    );
    check(&session("LOG:  connection authorized: user=app database=shop"), &[("db.event", "login_succeeded"), ("db.tls", "false")]);
    check(&session("LOG:  replication connection authorized: user=app application_name=x"), &[("db.event", "login_succeeded")]);
    check(
        &session("LOG:  connection authenticated: identity=\"app@EXAMPLE\" method=pam (/x/pg_hba.conf:5)"),
        &[("db.event", "authenticated"), ("db.auth.method", "pam"), ("db.auth.identity", "app@EXAMPLE")],
    );
    check(
        &session("LOG:  disconnection: session time: 1:02:03.456 user=app database=shop host=10.0.0.7 port=1"),
        &[("db.event", "logout"), ("db.duration.ms", "3723456")],
    );
    for (message, reason) in [
        ("password authentication failed for user \"app\"", "bad_credentials"),
        ("PAM authentication failed for user \"app\"", "bad_credentials"),
        ("no pg_hba.conf entry for host \"10.0.0.7\", user \"app\", database \"shop\", no encryption", "host_rejected"),
        ("pg_hba.conf rejects connection for host \"10.0.0.7\", user \"app\", database \"shop\", SSL encryption", "host_rejected"),
        ("role \"app\" does not exist", "unknown_user"),
        ("role \"app\" is not permitted to log in", "not_permitted"),
        ("database \"shop\" does not exist", "unknown_database"),
        ("too many connections for role \"app\"", "too_many_connections"),
        ("sorry, too many clients already", "too_many_connections"),
    ] {
        check(
            &session(&format!("FATAL:  {message}")),
            &[("db.event", "login_failed"), ("db.reason", reason), ("db.user", "app"), ("db.outcome", "failure")],
        );
    }
    for (detail, reason) in [
        ("Role \"app\" does not exist.\n\tConnection matched pg_hba.conf line 5: \"host all\"", "unknown_user"),
        ("User \"app\" has an expired password.", "expired"),
        ("User \"app\" has no password assigned.", "no_password"),
        ("Connection matched pg_hba.conf line 5", "bad_credentials"),
    ] {
        let text = session("FATAL:  password authentication failed for user \"app\"") + &session(&format!("DETAIL:  {detail}"));
        check(&text, &[("db.event", "login_failed"), ("db.reason", reason), ("db.auth.method", "password"), ("log.forged", "")]);
    }
}

#[test]
fn statements() {
    check(
        &session("LOG:  statement: CREATE ROLE evil SUPERUSER LOGIN PASSWORD 'hunter2';"),
        &[
            ("db.event", "account_change"),
            ("db.command", "CREATE ROLE"),
            ("db.statement.class", "ROLE"),
            ("db.object.name", "evil"),
            ("db.statement", "CREATE ROLE evil SUPERUSER LOGIN PASSWORD '<redacted>';"),
            ("db.message", "statement: CREATE ROLE evil SUPERUSER LOGIN PASSWORD '<redacted>';"),
        ],
    );
    check(
        &session("LOG:  duration: 201.516 ms  statement: SELECT 1"),
        &[("db.event", "query"), ("db.duration.ms", "201.516"), ("db.statement", "SELECT 1")],
    );
    check(&session("LOG:  duration: 2.5 ms"), &[("db.event", "duration"), ("db.duration.ms", "2.5")]);
    check(
        &(session("LOG:  execute <unnamed>: SELECT $1") + &session("DETAIL:  parameters: $1 = 'x'")),
        &[("db.event", "query"), ("db.statement", "SELECT $1"), ("db.parameters", "$1 = 'x'")],
    );
    check(
        &(session("ERROR:  must be superuser to create superusers") + &session("STATEMENT:  CREATE ROLE evil SUPERUSER")),
        &[
            ("db.event", "error"),
            ("db.reason", "permission_denied"),
            ("db.command", "CREATE ROLE"),
            ("db.error.message", "must be superuser to create superusers"),
        ],
    );
    check(
        &session("LOG:  parameter \"pgaudit.log\" changed to \"none\""),
        &[("db.event", "audit_change"), ("db.parameter.name", "pgaudit.log"), ("db.parameter.value", "none")],
    );
}

#[test]
fn a_detail_is_searched_for_secrets_though_its_message_was_clean() {
    let text = session("ERROR:  syntax error\n\tat some longer place of the text that is long enough for the next one")
        + &session("STATEMENT:  CREATE ROLE a\n\tPASSWORD 'hunter2'");
    check(&text, &[("db.event", "error"), ("db.statement", "CREATE ROLE a\nPASSWORD '<redacted>'")]);
}

#[test]
fn audit() {
    let line = |rest: &str| session(&format!("LOG:  AUDIT: SESSION,{rest}"));
    check(
        &line("6,1,ROLE,GRANT,TABLE,,GRANT SELECT ON customers TO readonly;,<none>"),
        &[
            ("db.event", "grant"),
            ("db.statement.class", "ROLE"),
            ("db.command", "GRANT"),
            ("db.object.type", "TABLE"),
            ("db.object.name", ""),
            ("db.query.id", "6"),
            ("db.parameters", ""),
        ],
    );
    check(
        &line("3,1,DDL,CREATE TABLE,TABLE,\"public.\"\"weird \"\"\"\"name\"\"\"\", table\"\"\",\"CREATE TABLE \"\"weird\n\t(id int);\",\"10,1\",7"),
        &[
            ("db.event", "ddl"),
            ("db.object.name", "public.\"weird \"\"name\"\", table\""),
            ("db.statement", "CREATE TABLE \"weird\n(id int);"),
            ("db.parameters", "10,1"),
            ("db.rows", "7"),
        ],
    );
    check(
        &line("1,1,READ,SELECT,,,COPY t FROM PROGRAM 'id',<none>"),
        &[("db.event", "query"), ("db.command", "COPY FROM PROGRAM"), ("db.statement.class", "READ")],
    );
    check(&line("1,1,MISC,SET,,,SET pgaudit.log = 'none',<not logged>"), &[("db.event", "audit_change")]);
    check(&line("1,1,DDL,ALTER SYSTEM,,,ALTER SYSTEM SET work_mem = 1,<none>"), &[("db.event", "config_change")]);
    check(
        &line("1,1,ROLE,CREATE ROLE,,,CREATE ROLE a PASSWORD <REDACTED>,<none>"),
        &[("db.event", "account_change"), ("db.statement", "CREATE ROLE a PASSWORD <REDACTED>")],
    );
    check(
        &line("1,1,WRITE,INSERT,TABLE,public.t,\"INSERT INTO t VALUES ('cut"),
        &[("db.statement.class", "WRITE"), ("db.statement", "INSERT INTO t VALUES ('cut")],
    );
    check(&line("1,1,WRI"), &[("db.statement.class", "WRI"), ("db.event", "query")]);
}

#[test]
fn forged_lines_never_count() {
    let host = "2026-11-24 03:03:54 UTC:10.0.0.7(56654):";
    let fake = "2026-11-24 03:10:00 UTC::@:[7]:LOG:  received fast shutdown";
    let failed = |user: &str| format!("@shop:[7419]:FATAL:  password authentication failed for user \"{}\"\n", user.replace('\n', "\n\t"));
    let next = session("LOG:  connection received: host=10.0.0.7 port=1");
    for user in [
        format!("x\n{fake}"),
        format!("x\n{fake}\n"),
        format!("x\n{fake}\n\t"),
        "x@shop:[9]:LOG:  connection authorized: user=rdsadmin".into(),
        "x@shop:[9]:LOG:  connection authorized: user=rdsadmin\n".into(),
        "x@shop:[9]:LOG:  connection authorized: user=rdsadmin\n\t".into(),
        "x\n".into(),
        "\n".into(),
        "x@y:[9]:LOG:  a\n@:[8]:LOG:  b\n".into(),
        "a@b:[9]:LOG:  x\n2026-11-24 03:03:54 UTC:[local]:b".into(),
    ] {
        let text = format!("{}{host}{user}{}{}", next, failed(&user), next);
        let events = decode(&text);
        let told: Vec<_> = events.iter().map(|event| (event["db.event"].as_str(), event.contains_key("log.forged"))).collect();
        assert_eq!(told, [("connection", false), ("login_failed", true), ("connection", false)], "{text}\n{events:#?}");
        assert_eq!(events[1]["db.user"], user, "{text}");
        assert_eq!(events[1]["db.session.pid"], "7419");
    }
}

#[test]
fn what_cannot_be_told_is_a_forgery() {
    // The name isn't repeated: a client that has logged in writes the same bytes as one that hasn't.
    check(&session("LOG:  statement: select '@x:[7]:LOG:  hi'"), &[("db.event", "log_forgery"), ("log.forged", "true"), ("db.user", "")]);
    // The name holds a newline, and what follows could be anybody's line.
    let broken = "2026-11-24 03:03:54 UTC:10.0.0.7(1):x\n2026-11-24 03:03:54 UTC::@:[7]:LOG:  received fast shutdown\n";
    check(broken, &[("db.event", "log_forgery")]);
    check("2026-11-24 03:03:54 UTC:10.0.0.7(1):x", &[("db.event", "log_forgery")]);
    check("@shop:[7419]:FATAL:  password authentication failed for user \"x\"\n", &[("db.event", "log_forgery")]);
    // Second prefix: the application's name stands directly before the severity.
    let long = |rest: &str| format!("2026-11-24 02:52:12.345 UTC:10.0.0.7(1):a@b:[1]:2:00000:2026-11-24 02:52:12 UTC:3/60:0:6b04fe6f.1838:{rest}");
    check(&long("xLOG:  connection authorized: user=rdsadminLOG:  statement: SELECT 1"), &[("db.event", "log_forgery")]);
    check(&long("xLOG:  statement: SELECT 'ERROR:  no'"), &[("db.event", "query"), ("log.forged", "")]);
    // Behind a TAB, a line's text is safe.
    check(
        &session("LOG:  statement: select 'a\n\t2026-11-24 03:10:00 UTC:10.0.0.1(1):rdsadmin@postgres:[7]:LOG:  hi'"),
        &[("db.event", "query"), ("log.forged", "")],
    );
}

#[test]
fn a_process_that_does_not_serve_the_client_is_a_forgery() {
    let host = "2026-11-24 03:03:54 UTC:10.0.0.7(56654):";
    let text = format!(
        "{host}[unknown]@[unknown]:[7419]:LOG:  connection received: host=10.0.0.7 port=56654\n\
         {host}a@b:[9]:LOG:  x\n2026-11-24 03:03:54 UTC:[local]:b@shop:[7419]:FATAL:  sorry, too many clients already\n"
    );
    let told: Vec<_> = decode(&text).into_iter().map(|event| event["db.event"].clone()).collect();
    assert_eq!(told, ["connection", "log_forgery", "login_failed"]);
}

#[test]
fn an_application_name_that_imitates_is_flagged() {
    check(
        &session("LOG:  connection authorized: user=app database=shop application_name=x LOG:  y SSL enabled (protocol=TLSv1.3, cipher=A, bits=256)"),
        &[("db.event", "login_succeeded"), ("log.forged", "true"), ("db.application", "x LOG:  y")],
    );
}

#[test]
fn details_of_other_processes_and_records() {
    let other = "2026-11-24 02:52:55 UTC:10.0.0.8(1):b@shop:[2]:LOG:  statement: SELECT 1\n";
    let text = session("FATAL:  password authentication failed for user \"app\"") + other + &session("DETAIL:  Role \"app\" does not exist.");
    let events = decode(&text);
    assert_eq!(events.len(), 2);
    assert_eq!((events[0]["db.reason"].as_str(), events[1]["db.event"].as_str()), ("unknown_user", "query"));

    let mut decoder = LogDecoder::default();
    let pieces = [Piece { start: 0, time_ms: 5 }];
    let first = session("FATAL:  password authentication failed for user \"app\"");
    let second = session("DETAIL:  Role \"app\" does not exist.");
    for (stream, message) in [(1, "password authentication failed for user \"app\""), (2, "")] {
        assert_eq!(decode_with(&mut decoder, first.as_bytes(), &pieces, 1)[0]["db.event"], "login_failed");
        let events = decode_with(&mut decoder, second.as_bytes(), &pieces, stream);
        assert_eq!((events[0]["db.event"].as_str(), events[0]["db.reason"].as_str()), ("detail", "unknown_user"));
        assert_eq!(events[0].get("db.error.message").map_or("", |message| message), message);
    }
}

#[test]
fn events_know_their_message() {
    let lines = [session("LOG:  statement: SELECT 1"), session("LOG:  statement: SELECT 2") + &session("LOG:  statement: SELECT 3")];
    let text = lines.concat();
    let pieces = [Piece { start: 0, time_ms: 5 }, Piece { start: lines[0].len() as u32, time_ms: 6 }];
    let route = Route::of(Kind::Postgres);
    let mut seen = Vec::new();
    let batch = Batch { route: &route, text: text.as_bytes(), pieces: &pieces, stream: 1, now_ms: 0 };
    LogDecoder::default().decode(&batch, |event| seen.push((event.piece, event.part, event.get(Tax::Statement).unwrap().to_vec())));
    assert_eq!(seen, [(0, 0, b"SELECT 1".to_vec()), (1, 0, b"SELECT 2".to_vec()), (1, 1, b"SELECT 3".to_vec())]);
}

/// The folder of real logs, where there is one.
fn samples(name: &str) -> Option<std::path::PathBuf> {
    let shared =
        std::env::var_os("TRAILWARDEN_SHARED").map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into(), std::path::PathBuf::from);
    let path = shared.join("samples/pg").join(name);
    if !path.exists() {
        eprintln!("left out: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_messages_equal_the_servers_own_json() {
    for (log, json, counted) in [("real_pg.log", "real_pg_jsonlog.json", 613), ("real_pg_injection.log", "real_pg_injection.json", 0)] {
        let (Some(log), Some(json)) = (samples(log), samples(json)) else { return };
        let events = decode(&std::fs::read_to_string(log).unwrap());
        let json = std::fs::read_to_string(json).unwrap();
        let expected: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), expected.len());
        let mut equal = 0;
        for (event, expected) in events.iter().zip(&expected) {
            let told = |name: &str| expected.get(name).map_or(String::new(), |value| value.as_str().map_or(value.to_string(), Into::into));
            let message = told("message");
            let mut masked = Vec::new();
            crate::redact::redact(message.as_bytes(), &mut masked);
            let masked = String::from_utf8(masked).unwrap();
            let found = &event["db.message"];
            let same = *found == masked || found.strip_prefix(&masked).is_some_and(|rest| rest.starts_with(" at character "));
            assert!(same, "{found}\n{masked}");
            for (field, key) in [
                ("db.severity", "error_severity"),
                ("db.session.pid", "pid"),
                ("db.user", "user"),
                ("db.client.port", "remote_port"),
                ("db.hint", "hint"),
            ] {
                assert_eq!(event.get(field).map_or("", |value| value), told(key), "{field} of {found}");
            }
            equal += 1;
        }
        assert!(counted == 0 || equal == counted);
    }
}

#[test]
fn real_forgeries_are_flagged_and_never_believed() {
    let Some(path) = samples("real_pg_injection.log") else { return };
    let events = decode(&std::fs::read_to_string(path).unwrap());
    let flagged: Vec<_> = events
        .iter()
        .filter(|event| event.contains_key("log.forged"))
        .map(|event| (event["db.session.pid"].as_str(), event["db.event"].as_str()))
        .collect();
    assert_eq!(
        flagged,
        [
            ("7419", "login_failed"),
            ("7425", "login_failed"),
            ("7429", "login_succeeded"),
            ("7433", "authenticated"),
            ("7433", "login_succeeded"),
            ("7433", "login_failed"),
        ]
    );
    let believed =
        |event: &str, forged: bool| events.iter().filter(|fields| fields["db.event"] == event && fields.contains_key("log.forged") == forged).count();
    assert_eq!((believed("shutdown", false), believed("grant", false), believed("login_succeeded", false)), (2, 0, 1));
}

#[test]
fn real_second_prefix() {
    let Some(path) = samples("real_pg_prefix_m.log") else { return };
    let events = decode(&std::fs::read_to_string(path).unwrap());
    assert!(events.iter().all(|event| !event.contains_key("log.forged") && event["db.event"] != "detail"), "{events:#?}");
    assert!(events.iter().all(|event| event.contains_key("db.session.id")));
}

proptest! {
    #[test]
    fn never_panics(text in r#"(?s)((2026-11-24 02:52:55 UTC:|2026-11-24 02:52:55\.123 UTC:|10\.0\.0\.7\(1\):|[a-z]{0,3}@[a-z]{0,3}:\[[0-9]{1,3}\]:|LOG:  |FATAL:  |AUDIT: SESSION,1,1,|DETAIL:  |statement: |\n|\t|"|,|'|.){0,40})"#) {
        decode(&text);
    }

    /// Whatever a client calls itself, the server's line is read as the server meant it, or not at all.
    #[test]
    fn no_name_makes_a_true_line(
        user in r#"([a-z]|\n|\t|@|:\[[0-9]\]:|LOG:  |FATAL:  |2026-11-24 03:10:00 UTC:|:|\[local\]:|10\.0\.0\.1\(1\):| |received fast shutdown|connection authorized: user=a){1,12}"#,
        database in r#"([a-z]|\n|@|:\[[0-9]\]:LOG:  ){1,5}"#,
    ) {
        let (user, database) = (&user[..user.len().min(63)], &database[..database.len().min(63)]);
        let line = |rest: &str| format!("2026-11-24 03:03:54 UTC:10.0.0.7(56654):{user}@{database}:[7419]:{rest}\n");
        let quoted = user.replace('\n', "\n\t");
        let text = line(&format!("FATAL:  password authentication failed for user \"{quoted}\"")) + &line(&format!("DETAIL:  Role \"{quoted}\" does not exist."));
        for event in decode(&text) {
            let told = event["db.event"].as_str();
            prop_assert!(matches!(told, "login_failed" | "log_forgery" | "detail"), "{told}: {text:?}");
            prop_assert!(told != "login_failed" || event["db.session.pid"] == "7419");
        }
    }
}
