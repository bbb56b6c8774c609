//! MySQL's family: real samples where they are there, our own lines everywhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::decode::log::{Batch, Kind, LogDecoder, Piece, Route};

/// An event's fields as text.
type Fields = BTreeMap<&'static str, String>;

fn decode(kind: Kind, text: &str) -> Vec<Fields> {
    decode_pieces(kind, text, &[])
}

fn decode_pieces(kind: Kind, text: &str, pieces: &[Piece]) -> Vec<Fields> {
    let route = Route::of(kind);
    let mut events = Vec::new();
    LogDecoder::default().decode(&Batch { route: &route, text: text.as_bytes(), pieces, stream: 0, now_ms: 0 }, |event| {
        let mut fields: Fields = event.iter().map(|(tax, value)| (tax.as_str(), String::from_utf8_lossy(value).into_owned())).collect();
        fields.insert("time", event.time_ms.unwrap_or_default().to_string());
        fields.insert("product", event.product.into());
        events.push(fields);
    });
    events
}

/// Checks some fields of the only event; an empty expectation means absent.
fn check(kind: Kind, text: &str, expected: &[(&str, &str)]) {
    let events = decode(kind, text);
    assert_eq!(events.len(), 1, "{text}: {events:#?}");
    for (name, value) in expected {
        assert_eq!(events[0].get(*name).map_or("", |value| value), *value, "{name} of {text}\n{:#?}", events[0]);
    }
}

fn told(events: &[Fields]) -> Vec<(&str, bool)> {
    events.iter().map(|event| (event["db.event"].as_str(), event.contains_key("log.forged"))).collect()
}

#[test]
fn audit_lines() {
    let line = |rest: &str| format!("20261124 02:54:31,ip-10-0-0-1,app,10.0.0.7,{rest}\n");
    check(
        Kind::MysqlAudit,
        &line("4,0,CONNECT,shop,,0"),
        &[
            ("db.event", "login_succeeded"),
            ("db.user", "app"),
            ("db.client.address", "10.0.0.7"),
            ("db.session.pid", "4"),
            ("db.name", "shop"),
            ("product", "mariadb"),
            ("time", "1795488871000"),
        ],
    );
    for (code, reason) in [("1045", "bad_credentials"), ("1044", "not_permitted"), ("4151", "locked"), ("1049", "unknown_database")] {
        check(
            Kind::MysqlAudit,
            &line(&format!("6,0,FAILED_CONNECT,,,{code}")),
            &[("db.event", "login_failed"), ("db.reason", reason), ("db.error.code", code)],
        );
    }
    check(
        Kind::MysqlAudit,
        &line("4,12,QUERY,shop,'INSERT INTO c VALUES (\\'it\\'\\'s\\',\\'a,b\\')\\n -- \\\\',0"),
        &[
            ("db.event", "query"),
            ("db.command", "INSERT"),
            ("db.object.name", "c"),
            ("db.statement", "INSERT INTO c VALUES ('it''s','a,b')\n -- \\"),
            ("db.outcome", "success"),
            ("db.query.id", "12"),
        ],
    );
    check(
        Kind::MysqlAudit,
        &line("4,16,QUERY,shop,'SELECT * FROM mysql.user',1142"),
        &[("db.event", "error"), ("db.reason", "permission_denied"), ("db.error.code", "1142"), ("db.command", "SELECT")],
    );
    check(Kind::MysqlAudit, &line("4,16,QUERY,,'SET GLOBAL server_audit_logging=OFF',0"), &[("db.event", "audit_change")]);
    check(Kind::MysqlAudit, &line("4,16,QUERY,,'GRANT ALL PRIVILEGES ON *.* TO \\'evil\\'@\\'%\\' IDENTIFIED BY *****',0"), &[("db.event", "grant")]);
    check(
        Kind::MysqlAudit,
        &line("4,10,DROP,shop,we,ird tbl,"),
        &[("db.event", "table"), ("db.command", "DROP"), ("db.object.name", "we,ird tbl"), ("log.forged", "")],
    );
    check(Kind::MysqlAudit, &line("4,16,QUERY,shop,'SELECT cut off"), &[("db.event", "query"), ("db.statement", "SELECT cut off")]);
    check(
        Kind::MysqlAudit,
        "20261124 02:54:31,vm,we,ird'u,localhost,13,0,FAILED_CONNECT,,,1045",
        &[("db.user", "we,ird'u"), ("db.event", "login_failed")],
    );
    check(Kind::MysqlAudit, "20261124 02:54:31,vm,,,0,0,DISCONNECT,,,1040", &[("db.event", "login_failed"), ("db.reason", "too_many_connections")]);
}

#[test]
fn audit_of_aurora_and_rds() {
    check(
        Kind::MysqlAudit,
        "1795488871123456,aurora-1,app,10.0.0.7,4,0,CONNECT,shop,,0",
        &[("db.engine", "aurora-mysql"), ("product", "mysql"), ("time", "1795488871123")],
    );
    check(
        Kind::MysqlAudit,
        "20261124 02:54:31,ip-1,app,10.0.0.7,4,0,CONNECT,shop,,0,4",
        &[("product", "mysql"), ("db.tls", "true"), ("db.event", "login_succeeded")],
    );
    check(
        Kind::MysqlAudit,
        "20261124 02:54:31,ip-1,app,10.0.0.7,4,0,CONNECT,shop,,0,TLSv1.3",
        &[("product", "mariadb"), ("db.tls.version", "TLSv1.3")],
    );
}

#[test]
fn a_failed_login_is_no_session() {
    let text = "20261124 02:54:31,vm,app,h,6,0,FAILED_CONNECT,,,1045\n20261124 02:54:31,vm,app,h,6,0,DISCONNECT,,,0\n20261124 02:54:31,vm,app,h,7,0,DISCONNECT,,,0\n";
    assert_eq!(told(&decode(Kind::MysqlAudit, text)), [("login_failed", false), ("other", false), ("logout", false)]);
}

#[test]
fn a_zone_shows_in_cloudwatch_logs_time() {
    let text = "20261124 04:54:31,vm,app,h,7,0,CONNECT,,,0\n";
    for (piece, expected) in [(1_795_488_871_000, "1795488871000"), (1_795_496_070_000, "1795496071000")] {
        assert_eq!(decode_pieces(Kind::MysqlAudit, text, &[Piece { start: 0, time_ms: piece }])[0]["time"], expected);
    }
}

#[test]
fn audit_lines_that_were_forged_never_count() {
    let next = "20261124 02:54:31,vm,app,h,7,1,QUERY,,'select 1',0\n".repeat(4);
    let fake = "20261124 02:54:31,vm,root,localhost,3,1,QUERY,,'DROP DATABASE shop',0";
    for user in [
        format!("x\n{fake}"),
        format!("x\n{fake}\n"),
        "root,localhost,3,1,QUERY,,'DROP DATABASE shop',0".into(),
        "root,localhost,3,1,QUERY,,'DROP DATABASE shop',0\n".into(),
        "root,localhost,3,0,CONNECT,,,0".into(),
        "root,localhost,3,1,DROP,a,b,\n".into(),
        "\n".into(),
    ] {
        let text = format!("{next}20261124 03:04:17,vm,{user},localhost,3,0,FAILED_CONNECT,,,1045\n{next}");
        let events = decode(Kind::MysqlAudit, &text);
        let failed: Vec<_> = events.iter().filter(|event| event["db.event"] == "login_failed").collect();
        assert_eq!(failed.len(), 1, "{text}\n{events:#?}");
        assert_eq!((failed[0]["db.user"].as_str(), failed[0].contains_key("log.forged")), (user.as_str(), true), "{text}");
        assert!(events.iter().all(|event| matches!(event["db.event"].as_str(), "query" | "login_failed" | "log_forgery")), "{events:#?}");
        assert_eq!(events.iter().rev().take(4).filter(|event| event["db.event"] == "query").count(), 4);
    }
}

#[test]
fn whole_lines_within_a_name_stand_twice() {
    let name = "root,h,3,7,QUERY,,'DROP DATABASE shop',0\n20261124 02:54:31,vm,bob";
    let next = |id: u32| format!("20261124 02:54:31,vm,app,h,7,{id},QUERY,,'select 1',0\n");
    let ended = |rest: &str| format!("20261124 03:04:17,vm,{name},h,3,0,{rest}\n");
    let text = [next(1), ended("FAILED_CONNECT,,,1045"), next(2), ended("DISCONNECT,,,0"), next(3)].concat();
    let (query, forged) = (("query", false), ("log_forgery", true));
    assert_eq!(told(&decode(Kind::MysqlAudit, &text)), [query, forged, ("login_failed", true), query, forged, ("other", true), query]);
}

#[test]
fn error_log() {
    check(
        Kind::MysqlError,
        "2022-10-14T09:16:02.430542Z 63707 [Note] [MY-010926] [Server] Access denied for user 'root'@'ip-10-0-16-79' (using password: YES)",
        &[
            ("db.event", "login_failed"),
            ("db.reason", "bad_credentials"),
            ("db.user", "root"),
            ("db.client.address", "ip-10-0-16-79"),
            ("db.error.code", "MY-010926"),
            ("db.session.pid", "63707"),
            ("product", "mysql"),
            ("time", "1665738962430"),
        ],
    );
    check(
        Kind::MysqlError,
        "2026-11-24  2:54:31 8 [Warning] Access denied for user 'app'@'127.0.0.1' to database 'nosuchdb'",
        &[("db.reason", "not_permitted"), ("db.name", "nosuchdb"), ("product", "mariadb"), ("log.forged", "")],
    );
    check(
        Kind::MysqlError,
        "2026-11-24  2:54:31 8 [Warning] Access denied for user 'we,ird'u'@'localhost' (using password: NO)",
        &[("db.user", "we,ird'u"), ("db.reason", "no_password"), ("log.forged", "")],
    );
    check(
        Kind::MysqlError,
        "2026-11-24  3:04:17 3 [Warning] Access denied for user 'x",
        &[("db.event", "login_failed"), ("db.user", "x"), ("log.forged", "true")],
    );
    check(
        Kind::MysqlError,
        "2026-11-24  2:54:33 0 [Warning] Aborted connection 0 to db: 'unconnected' user: 'unauthenticated' host: 'connecting host' (Too many connections)",
        &[("db.event", "login_failed"), ("db.reason", "too_many_connections")],
    );
    check(Kind::MysqlError, "2026-11-24  2:54:35 0 [ERROR] Something broke", &[("db.event", "error"), ("db.error.message", "Something broke")]);
    let text =
        "261124  2:54:00 server_audit: x.261124  2:54:00 server_audit: logging started to the file y.\n261124  2:54:32 server_audit: STOPPED\n";
    assert_eq!(told(&decode(Kind::MysqlError, text)), [("other", false), ("audit_change", false), ("audit_change", false)]);
    let text = "2026-11-24  2:54:31 8 [Warning] Access denied for user 'a'@'h' (using password: NO)\n2026-11-24  2:54:31 9 [Note] Normal shutdown\n'@'localhost' (using password: YES)\n";
    assert_eq!(told(&decode(Kind::MysqlError, text)), [("log_forgery", true), ("log_forgery", true)]);
}

#[test]
fn error_log_lines_that_were_forged_never_count() {
    let host = "2026-11-24  2:54:31 8 [Warning] Access denied for user ";
    let next = "2026-11-24  2:54:31 9 [Note] InnoDB: nothing\n".repeat(6);
    let fake = "2026-11-24  2:54:31 9 [Note] Normal shutdown";
    for (name, failed) in [
        (format!("x\n{fake}"), true),
        (format!("x\n{fake}\n"), true),
        ("x\n".into(), true),
        ("a'@'h' (using password: NO) b".into(), true),
        (format!("a'@'h' (using password: NO)\n{fake}\n"), false),
        (format!("a'@'h' (using password: NO)\n{fake}"), false),
    ] {
        let events = decode(Kind::MysqlError, &format!("{next}{host}'{name}'@'10.0.0.7' (using password: YES)\n{next}"));
        assert!(events.iter().all(|event| event["db.event"] != "shutdown"), "{name}: {events:#?}");
        let forged: Vec<_> = events.iter().filter(|event| event.contains_key("log.forged")).collect();
        assert!(!forged.is_empty(), "{name}");
        if failed {
            assert_eq!((forged[0]["db.event"].as_str(), forged[0].get("db.user"), forged.len()), ("login_failed", Some(&name), 1), "{name}");
        }
    }
}

#[test]
fn general_log() {
    let text = "/usr/sbin/mariadbd, Version: 10.11. started with:\nTcp port: 3306  Unix socket: /x\nTime\t\t    Id Command\tArgument\n\
                261124  2:55:05\t     3 Connect\troot@localhost on shop using SSL/TLS\n\
                \t\t     3 Query\tCREATE USER 'app'@'%'\nIDENTIFIED BY 'appsecret'\n\
                \t\t     3 Quit\t\n\
                \t\t     4 Connect\tapp@localhost on  using TCP/IP\n\
                \t\t     4 Connect\tAccess denied for user 'app'@'localhost' (using password: YES)\n";
    let events = decode(Kind::MysqlGeneral, text);
    assert_eq!(told(&events), [("connection", false), ("account_change", false), ("logout", false), ("connection", false), ("login_failed", false)]);
    assert_eq!(events[1]["db.statement"], "CREATE USER 'app'@'%'\nIDENTIFIED BY '<redacted>'");
    assert!(events.iter().all(|event| event["time"] == "1795488905000"));
    assert_eq!((events[0]["db.user"].as_str(), events[0]["db.name"].as_str(), events[0]["db.tls"].as_str()), ("root", "shop", "true"));
    check(
        Kind::MysqlGeneral,
        "2018-12-27T11:14:54.687513Z\t   48 Connect\troot@172.30.0.3 on  using SSL/TLS",
        &[("product", "mysql"), ("db.client.address", "172.30.0.3"), ("time", "1545909294687")],
    );
    for name in [
        "x\n\t\t     9 Query\tDROP DATABASE shop",
        "x\n\t\t     9 Query\tDROP DATABASE shop\n",
        "a@b on c using TCP/IP\n\t\t     9 Query\tDROP DATABASE shop\n",
    ] {
        let text = format!("261124  2:55:05\t     3 Connect\t{name}@localhost on  using TCP/IP\n");
        assert!(decode(Kind::MysqlGeneral, &text).iter().all(|event| event["db.event"] == "log_forgery"), "{:#?}", decode(Kind::MysqlGeneral, &text));
    }
}

#[test]
fn slow_log() {
    let text = "# Time: 261124  2:55:05\n# User@Host: app[app] @ localhost [127.0.0.1]\n# Thread_id: 11  Schema: shop  QC_hit: No\n\
                # Query_time: 1.000255  Lock_time: 0.000000  Rows_sent: 1  Rows_examined: 0\n# Rows_affected: 0  Bytes_sent: 65\nSET timestamp=1795488905;\nselect\nsleep(1);\n\
                # User@Host: app[app] @ localhost []\n# Thread_id: 12  Schema:   QC_hit: No\n# Query_time: 2.5  Lock_time: 0  Rows_sent: 0  Rows_examined: 0\nuse other;\nSET timestamp=1;\nDROP TABLE x;\n";
    let events = decode(Kind::MysqlSlow, text);
    assert_eq!(told(&events), [("query", false), ("ddl", false)]);
    assert_eq!(
        (events[0]["db.statement"].as_str(), events[0]["db.duration.ms"].as_str(), events[0]["db.client.address"].as_str()),
        ("select\nsleep(1)", "1000", "127.0.0.1")
    );
    assert_eq!((events[1]["db.name"].as_str(), events[1]["db.session.pid"].as_str(), events[1]["time"].as_str()), ("other", "12", "1795488905000"));
    check(
        Kind::MysqlSlow,
        "# Time: 2024-01-02T03:04:05.678901Z\n# User@Host: app[app] @  [10.0.0.7]  Id:   5\n# Query_time: 1.0  Lock_time: 0 Rows_sent: 3  Rows_examined: 0\nSET timestamp=1;\nselect 1;\n",
        &[("product", "mysql"), ("db.session.pid", "5"), ("db.client.address", "10.0.0.7"), ("db.rows", "3"), ("time", "1704164645678")],
    );
}

/// A real log, where there is one.
fn sample(name: &str) -> Option<String> {
    let shared =
        std::env::var_os("TRAILWARDEN_SHARED").map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").into(), std::path::PathBuf::from);
    let path = shared.join("samples/mysql").join(name);
    if !path.exists() {
        eprintln!("left out: {} is not there", path.display());
        return None;
    }
    Some(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
}

#[test]
fn real_audit() {
    for (name, lines, failed, succeeded) in [("real_mariadb_server_audit.log", 86, 7, 6), ("real_mariadb_server_audit_2.log", 0, 0, 0)] {
        let Some(text) = sample(name) else { return };
        let events = decode(Kind::MysqlAudit, &text);
        assert_eq!(events.len(), text.lines().count());
        assert!(told(&events).iter().all(|(_, forged)| !forged));
        let count = |word: &str| events.iter().filter(|event| event["db.event"] == word).count();
        assert_eq!(
            (count("login_failed"), count("login_succeeded")),
            (text.matches(",FAILED_CONNECT,").count() + text.matches(",,0,0,DISCONNECT,,,1040").count(), text.matches(",CONNECT,").count())
        );
        if lines > 0 {
            assert_eq!(
                (count("login_failed"), count("login_succeeded"), events.last().unwrap()["db.event"].as_str()),
                (failed, succeeded, "audit_change")
            );
        }
    }
}

#[test]
fn real_forgeries() {
    let forged = |word| (word, true);
    let (query, connection) = (("query", false), ("connection", false));
    let failed = ("login_failed", false);
    for (kind, name, expected) in [
        (Kind::MysqlAudit, "real_mariadb_server_audit_injection.log", vec![forged("login_failed"), forged("other"), failed, ("other", false)]),
        (Kind::MysqlError, "real_mariadb_error_injection.log", vec![forged("login_failed"), failed, forged("login_failed")]),
        (
            Kind::MysqlGeneral,
            "real_mariadb_general_injection.log",
            vec![forged("connection"), forged("login_failed"), connection, failed, connection, query, query],
        ),
    ] {
        let Some(text) = sample(name) else { return };
        let events = decode(kind, &text);
        assert_eq!(told(&events)[..expected.len()], expected, "{events:#?}");
    }
}

#[test]
fn real_others() {
    for (kind, name, counted) in [
        (Kind::MysqlError, "real_mariadb_error.log", ("login_failed", 10)),
        (Kind::MysqlError, "mysql8_error_public_lines.log", ("login_failed", 4)),
        (Kind::MysqlGeneral, "real_mariadb_general_2.log", ("account_change", 3)),
        (Kind::MysqlSlow, "real_mariadb_slowquery_2.log", ("query", 11)),
    ] {
        let Some(text) = sample(name) else { return };
        let events = decode(kind, &text);
        assert_eq!(events.iter().filter(|event| event["db.event"] == counted.0).count(), counted.1, "{name} {events:#?}");
        assert!(told(&events).iter().all(|(_, forged)| !forged), "{events:#?}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in r#"(?s)((20261124 02:54:31,vm,|1795488871123456,h,|261124  2:55:05\t|\t\t   3 (Query|Connect)\t|2026-11-24  2:54:31 3 \[Note\] |# Time: |# User@Host: |# Query_time: |Access denied for user '|'@'|,h,1,2,(QUERY|CONNECT|READ|FAILED_CONNECT),|,'|',0|,,0|\n|[a-z ,]|.){0,40})"#) {
        for kind in [Kind::MysqlAudit, Kind::MysqlError, Kind::MysqlGeneral, Kind::MysqlSlow] {
            decode(kind, &text);
        }
    }

    /// Whatever a client calls itself, its failed login never becomes anything else.
    #[test]
    fn no_name_makes_a_true_audit_line(user in r#"([a-z]|\n|,|,root,h,1,2,|20261124 02:54:31,vm,|QUERY,,'x',0|CONNECT,,,0|DROP,a,b,|,h,3,0,){1,8}"#) {
        let user = &user[..user.len().min(128)];
        let line = |rest: &str| format!("20261124 03:04:17,vm,{user},localhost,3,0,{rest}\n");
        let text = line("FAILED_CONNECT,,,1045") + &line("DISCONNECT,,,0");
        for event in decode(Kind::MysqlAudit, &text) {
            let told = event["db.event"].as_str();
            prop_assert!(matches!(told, "login_failed" | "log_forgery" | "other"), "{told}: {text:?}");
        }
    }
}
