//! Real database servers, attacked: their own log files give exactly the expected events.
//!
//! In: `tests/servers/*.sh`, which start a server on loopback in a folder of its own, attack it and stop it. Out: counts of the
//! taxonomy's words. Invariant: the servers' bytes are read as CloudWatch Logs would carry them, one message an entry.

#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    path::Path,
    process::Command,
};

use trailwarden::{
    decode::{Decoder, Item},
    event::Body,
};

type Fields = BTreeMap<&'static str, String>;

/// Runs a script; `None` if one of the programs that it needs isn't installed.
fn run(script: &str, programs: &[&str], folder: &Path) -> Option<()> {
    let found = programs.iter().map(|name| tools::tool(name)).collect::<Option<Vec<_>>>()?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = format!("{}:/usr/lib/postgresql/15/bin:/usr/sbin:{}", found[0].parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(script);
    // Servers refuse to run as root, so root lends the folder to the user that the packages made.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let copy = folder.join("attack.sh");
    std::fs::copy(&script, &copy).unwrap();
    let mut command = if is_root {
        let user = if programs.contains(&"initdb") { "postgres" } else { "mysql" };
        assert!(Command::new("chown").args(["-R", user]).arg(folder).status().unwrap().success());
        let mut command = Command::new("runuser");
        command.args(["-u", user, "--", "env", &format!("PATH={path}"), "bash"]);
        command
    } else {
        let mut command = Command::new("bash");
        command.env("PATH", &path);
        command
    };
    let output = command.arg(&copy).arg(folder).arg(port.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Carries a log in gzipped CloudWatch Logs payloads, each entry a message of its own, and decodes those.
fn decode(log_group: &str, text: &[u8], begins: fn(&[u8]) -> bool) -> Vec<Fields> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match messages.last_mut() {
            Some(last) if !begins(line) => last.extend_from_slice(line),
            _ => messages.push(line.to_vec()),
        }
    }
    let mut events = Vec::new();
    let mut decoder = Decoder::default();
    decoder.record(&payload(log_group, &messages), &mut |item| {
        let Item::Event(event) = item else { panic!("not an event: {item:?}") };
        assert!(event.context.id.starts_with("id-") && event.context.time_ms > 0 && event.context.log_group == log_group, "{event:?}");
        let Body::Fields { fields, .. } = event.body else { panic!("not a log's event: {event:?}") };
        events.push(fields.iter().map(|(name, value)| (*name, String::from_utf8_lossy(value).into_owned())).collect());
    });
    events
}

/// What a subscription puts into Kinesis.
fn payload(log_group: &str, messages: &[Vec<u8>]) -> Vec<u8> {
    let message = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(bytes)).into_owned();
    let events: Vec<_> = messages
        .iter()
        .enumerate()
        .map(|(index, bytes)| serde_json::json!({"id": format!("id-{index}"), "timestamp": 1_795_488_775_000u64, "message": message(bytes)}))
        .collect();
    let payload = serde_json::json!({
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": log_group, "logStream": "shop", "subscriptionFilters": ["all"], "logEvents": events,
    });
    let plain = serde_json::to_vec(&payload).unwrap();
    let mut packer = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; packer.gzip_compress_bound(plain.len())];
    let length = packer.gzip_compress(&plain, &mut packed).unwrap();
    packed.truncate(length);
    packed
}

/// How many events have all of these values; an empty one means absent.
fn count(events: &[Fields], wanted: &[(&str, &str)]) -> usize {
    events.iter().filter(|event| wanted.iter().all(|(name, value)| event.get(*name).map_or("", |value| value) == *value)).count()
}

fn check(events: &[Fields], expected: &[(&[(&str, &str)], usize)]) {
    for (wanted, number) in expected {
        assert_eq!(count(events, wanted), *number, "{wanted:?} in {events:#?}");
    }
}

/// The titles of what the built-in detectors find in the log, carried in a CloudWatch Logs payload.
fn alerts(log_group: &str, text: &[u8], folder: &Path) -> BTreeSet<String> {
    let mut messages: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(text).split_inclusive('\n') {
        match messages.last_mut() {
            Some(last) if !starts_with_digit(line.as_bytes()) => last.push_str(line),
            _ => messages.push(line.to_owned()),
        }
    }
    let entry = |(at, message): (usize, &String)| serde_json::json!({"id": format!("{at:056}"), "timestamp": 1_764_000_000_000_i64 + at as i64, "message": message.trim_end_matches('\n')});
    let payload = serde_json::json!({
        "messageType": "DATA_MESSAGE", "owner": "111122223333", "logGroup": log_group, "logStream": "shop", "subscriptionFilters": ["f"],
        "logEvents": messages.iter().enumerate().map(entry).collect::<Vec<_>>(),
    });
    let file = folder.join("payload.json");
    std::fs::write(&file, payload.to_string()).unwrap();
    let scan = Command::new(env!("CARGO_BIN_EXE_trailwarden")).args(["scan", "--format", "json"]).arg(&file).output().unwrap();
    let found = String::from_utf8_lossy(&scan.stdout);
    let title = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["rule"]["title"].as_str().unwrap().to_owned();
    found.lines().map(title).collect()
}

/// What both attacks consist of.
const ATTACK: [&str; 8] = [
    "Administrator rights given inside a database",
    "Audit switched off inside the database",
    "Database login succeeded after many failures",
    "Database password guessing from one address",
    "Database runs a program or touches the server's files",
    "Someone writes false lines into a database's log",
    "Tables dropped one after the other",
    "Tables of a database dumped",
];

fn starts_with_digit(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit)
}

#[test]
fn postgres_attacked() {
    let folder = tempfile::tempdir().unwrap();
    if run("postgres.sh", &["initdb", "psql", "pg_ctl", "pg_dump"], folder.path()).is_none() {
        return;
    }
    let text = std::fs::read(folder.path().join("attack.log")).unwrap();
    assert!(!String::from_utf8_lossy(&text).contains("hunter2secret"), "pgaudit itself hides passwords");
    let expected = ATTACK.into_iter().chain(["Rights given to everyone inside a database"]).map(str::to_owned).collect();
    assert_eq!(alerts("/aws/rds/instance/shop/postgresql", &text, folder.path()), expected);
    let events = decode("/aws/rds/instance/shop/postgresql", &text, starts_with_digit);
    check(
        &events,
        &[
            (&[("db.event", "login_failed"), ("db.user", "app"), ("db.reason", "bad_credentials"), ("db.client.address", "127.0.0.1")], 10),
            (&[("db.event", "login_failed"), ("db.user", "ghost"), ("db.reason", "unknown_user")], 1),
            (&[("db.event", "login_failed"), ("log.forged", "true"), ("db.reason", "unknown_user")], 5),
            (&[("db.event", "login_failed")], 16),
            (&[("db.event", "login_succeeded"), ("db.user", "app")], 8),
            (&[("db.event", "error"), ("db.reason", "permission_denied"), ("db.command", "COPY FROM PROGRAM")], 1),
            (&[("db.event", "query"), ("db.command", "COPY FROM PROGRAM")], 1),
            (&[("db.event", "grant"), ("db.command", "GRANT")], 1),
            (&[("db.event", "account_change"), ("db.command", "ALTER ROLE")], 1),
            (&[("db.event", "ddl"), ("db.command", "DROP TABLE")], 5),
            (&[("db.command", "COPY TO"), ("db.application", "")], 1),
            (&[("db.event", "audit_change"), ("db.command", "ALTER SYSTEM")], 1),
            (&[("db.event", "audit_change"), ("db.parameter.name", "pgaudit.log"), ("db.parameter.value", "none")], 1),
            (&[("db.event", "shutdown"), ("db.message", "received fast shutdown")], 0),
            (&[("db.event", "shutdown"), ("db.message", "received fast shutdown request")], 1),
            (&[("db.event", "login_succeeded"), ("db.session.pid", "9")], 0),
            (&[("db.event", "log_forgery")], 0),
            (&[("db.event", "detail")], 0),
        ],
    );
}

#[test]
fn mariadb_attacked() {
    let folder = tempfile::tempdir().unwrap();
    if run("mariadb.sh", &["mariadbd", "mariadb", "mariadb-install-db", "mariadb-dump"], folder.path()).is_none() {
        return;
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(alerts("/aws/rds/instance/shop/audit", &read("attack.audit.log"), folder.path()), ATTACK.map(str::to_owned).into());
    let events = decode("/aws/rds/instance/shop/audit", &read("attack.audit.log"), starts_with_digit);
    check(
        &events,
        &[
            (&[("db.event", "login_failed"), ("db.user", "app"), ("db.reason", "bad_credentials"), ("db.client.address", "127.0.0.1")], 10),
            (&[("db.event", "login_failed"), ("db.user", "ghost")], 1),
            (&[("db.event", "login_failed"), ("log.forged", "true")], 3),
            (&[("db.event", "login_failed")], 14),
            (&[("db.event", "login_succeeded"), ("db.user", "app")], 7),
            (&[("db.event", "error"), ("db.reason", "permission_denied"), ("db.command", "SELECT")], 1),
            (&[("db.event", "account_change"), ("db.command", "CREATE USER")], 1),
            (&[("db.event", "grant"), ("db.command", "GRANT")], 1),
            (&[("db.event", "ddl"), ("db.command", "DROP TABLE")], 5),
            (&[("db.event", "table"), ("db.command", "DROP")], 5),
            (&[("db.command", "SELECT INTO OUTFILE")], 1),
            (&[("db.event", "audit_change")], 1),
            (&[("db.event", "ddl"), ("db.command", "DROP DATABASE")], 0),
            (&[("db.event", "login_succeeded"), ("log.forged", "true")], 0),
        ],
    );
    assert_eq!(events.last().unwrap()["db.event"], "audit_change", "nothing is written once the audit is off");
    let errors = decode("/aws/rds/instance/shop/error", &read("attack.error.log"), starts_with_digit);
    check(
        &errors,
        &[
            (&[("db.event", "login_failed"), ("db.user", "app"), ("db.client.address", "127.0.0.1")], 10),
            (&[("db.event", "login_failed")], 14),
            (&[("db.event", "audit_change")], 2),
        ],
    );
    let general = decode("/aws/rds/instance/shop/general", &read("attack.general.log"), |line| line.starts_with(b"\t\t") || starts_with_digit(line));
    assert!(!format!("{general:?}").contains("hunter2secret"), "passwords are masked");
    check(&general, &[(&[("db.event", "account_change"), ("db.command", "CREATE USER")], 1)]);
}
