//! The engines with small parsers, and what holds for all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An event's fields as text.
type Fields = BTreeMap<&'static str, String>;

fn decode_with(decoder: &mut LogDecoder, kind: Kind, text: &[u8]) -> (Vec<Fields>, Outcome) {
    let route = Route::of(kind);
    let mut events = Vec::new();
    let outcome = decoder.decode(&Batch { route: &route, text, pieces: &[], stream: 0, now_ms: 0 }, |event| {
        let mut fields: Fields = event.iter().map(|(tax, value)| (tax.as_str(), String::from_utf8_lossy(value).into_owned())).collect();
        fields.insert("time", event.time_ms.unwrap_or_default().to_string());
        events.push(fields);
    });
    (events, outcome)
}

fn decode(kind: Kind, text: &str) -> Vec<Fields> {
    decode_with(&mut LogDecoder::default(), kind, text.as_bytes()).0
}

/// Checks some fields of the only event; an empty expectation means absent.
pub(super) fn check(kind: Kind, text: &str, expected: &[(&str, &str)]) {
    let events = decode(kind, text);
    assert_eq!(events.len(), 1, "{text}: {events:#?}");
    for (name, value) in expected {
        assert_eq!(events[0].get(*name).map_or("", |value| value), *value, "{name} of {text}\n{:#?}", events[0]);
    }
}

#[test]
fn sqlserver() {
    check(
        Kind::SqlServer,
        "2024-01-02 03:04:05.67 Logon       Error: 18456, Severity: 14, State: 8.\n\
         2024-01-02 03:04:05.67 Logon       Login failed for user 'sa'. Reason: Password did not match that for the login provided. [CLIENT: 10.0.0.5]\n",
        &[
            ("db.event", "login_failed"),
            ("db.reason", "bad_credentials"),
            ("db.user", "sa"),
            ("db.client.address", "10.0.0.5"),
            ("db.error.code", "18456"),
            ("db.error.state", "8"),
            ("db.severity", "14"),
            ("time", "1704164645670"),
        ],
    );
    check(
        Kind::SqlServer,
        "2024-01-02 03:04:05.67 Logon       Login succeeded for user 'app'. Connection made using SQL Server authentication. [CLIENT: <local machine>]",
        &[("db.event", "login_succeeded"), ("db.user", "app"), ("db.client.address", "local")],
    );
    check(
        Kind::SqlServer,
        "2024-01-02 03:04:05.67 spid51      Configuration option 'xp_cmdshell' changed from 0 to 1. Run the RECONFIGURE statement to install.",
        &[("db.event", "config_change"), ("db.parameter.name", "xp_cmdshell"), ("db.parameter.value", "1"), ("db.session.pid", "51")],
    );
    check(
        Kind::SqlServer,
        "2024-01-02 03:04:05.67 Logon       Login failed for user 'x'. Reason: y [CLIENT: 1.2.3.4]'. Reason: Could not find a login matching the name provided. [CLIENT: 10.0.0.5]",
        &[("db.client.address", "10.0.0.5"), ("db.reason", "unknown_user"), ("log.forged", "true")],
    );
    let two = "2024-01-02 03:04:05.67 spid51      Error: 9002, Severity: 17, State: 2.\n2024-01-02 03:04:06.67 Server      SQL Server is terminating\nbecause of x\n";
    let told: Vec<_> = decode(Kind::SqlServer, two).into_iter().map(|event| event["db.event"].clone()).collect();
    assert_eq!(told, ["error", "shutdown"]);
}

#[test]
fn redshift() {
    let row = |event: &str, user: &str| {
        format!("{event} |Mon, 19 Aug 2013 17:59:53:353|::ffff:10.0.0.1 |33436 |27715|dev      |{user}   |password |0|TLSv1.2 |ECDHE |0| | | |app \n")
    };
    check(
        Kind::RedshiftConnection,
        &row("authentication failure", "rdsdb"),
        &[
            ("db.event", "login_failed"),
            ("db.user", "rdsdb"),
            ("db.client.address", "10.0.0.1"),
            ("db.client.port", "33436"),
            ("db.session.pid", "27715"),
            ("db.name", "dev"),
            ("db.tls.version", "TLSv1.2"),
            ("db.application", "app"),
            ("time", "1376935193353"),
        ],
    );
    for (event, told) in [("initiating session", "login_succeeded"), ("disconnecting session", "logout"), ("authenticated", "authenticated")] {
        check(Kind::RedshiftConnection, &row(event, "a"), &[("db.event", told)]);
    }
    for name in ["x|dev|root", "x\n", "x\nauthenticated |Mon, 19 Aug 2013 17:59:53:353|h|1|1|dev|root|password|0|"] {
        let events = decode(Kind::RedshiftConnection, &row("authentication failure", name));
        assert!(events.iter().all(|event| event["db.event"] == "log_forgery" && event["log.forged"] == "true"), "{events:#?}");
    }
    check(
        Kind::RedshiftUser,
        "100|evil    |        |Create|1|1|0|  |123|456|Mon, 19 Aug 2013 17:59:53:353\n",
        &[
            ("db.event", "account_change"),
            ("db.command", "CREATE USER"),
            ("db.object.name", "evil"),
            ("db.parameters", "usecreatedb=1 usesuper=1 usecatupd=0"),
        ],
    );
    let text = "'2020-01-24T10:00:00Z UTC [ db=dev user=u pid=1 userid=1 xid=2 ]' LOG: DROP TABLE\n  x;\n'2020-01-24T10:00:01Z UTC [ db=dev user=u pid=1 userid=1 xid=3 ]' LOG: CREATE USER a PASSWORD 'Secret1'\n";
    let events = decode(Kind::RedshiftActivity, text);
    assert_eq!((events[0]["db.event"].as_str(), events[0]["db.object.name"].as_str(), events[0]["db.user"].as_str()), ("ddl", "x", "u"));
    assert_eq!((events[1]["db.event"].as_str(), events[1]["db.statement"].as_str()), ("account_change", "CREATE USER a PASSWORD '<redacted>'"));
    assert_eq!(events[1]["time"], "1579860001000");
}

#[test]
fn docdb() {
    check(
        Kind::DocdbAudit,
        r#"{"atype":"authenticate","ts":1590000000123,"timestamp_utc":"x","remote_ip":"10.0.0.5:51000","users":[],"param":{"user":"app","db":"admin","mechanism":"SCRAM-SHA-1","success":false,"message":"","error":18},"result":"18"}"#,
        &[
            ("db.event", "login_failed"),
            ("db.user", "app"),
            ("db.client.address", "10.0.0.5"),
            ("db.client.port", "51000"),
            ("db.auth.method", "SCRAM-SHA-1"),
            ("db.error.code", "18"),
            ("time", "1590000000123"),
        ],
    );
    check(
        Kind::DocdbAudit,
        r#"{"atype":"authCheck","ts":{"$date":1590000000123},"remote_ip":"10.0.0.5:1","users":[{"user":"app","db":"shop"}],"param":{"command":"find","ns":"shop.cards","args":{"filter":{"a":"b"}}},"result":0}"#,
        &[
            ("db.event", "query"),
            ("db.statement.class", "READ"),
            ("db.command", "find"),
            ("db.namespace", "shop.cards"),
            ("db.user", "app"),
            ("db.statement", r#"{"filter":{"a":"b"}}"#),
            ("time", "1590000000123"),
        ],
    );
    check(
        Kind::DocdbAudit,
        r#"{"atype":"createUser","ts":1,"param":{"user":"evil","pwd":"secret","roles":["root"]},"result":"0"}"#,
        &[("db.event", "account_change"), ("db.object.name", "evil"), ("db.statement", r#"{"user":"evil","pwd":"<redacted>","roles":["root"]}"#)],
    );
    check(Kind::DocdbAudit, r#"{"atype":"auditConfigure","ts":1,"param":{},"result":0}"#, &[("db.event", "audit_change")]);
    check(
        Kind::DocdbAudit,
        r#"{"atype":"dropCollection","ts":1,"param":{"ns":"a.b"},"result":13}"#,
        &[("db.event", "error"), ("db.reason", "permission_denied")],
    );
    check(Kind::DocdbAudit, "not json", &[("db.event", "other"), ("db.message", "not json")]);
}

#[test]
fn audit_files_of_oracle_are_not_read_as_those_of_mysql() {
    let kind = |text: &str| detect::detect("/aws/rds/instance/erp/audit", "erp", text.as_bytes()).map(|route| route.kind);
    for oracle in ["Audit file /rdsdbdata/admin/ORCL/adump/x.aud", "Sat Jan  1 00:00:00 2022 +00:00\nLENGTH : '160'", "<?xml version=\"1.0\"?>"] {
        assert_eq!(kind(oracle), Some(Kind::OracleAudit), "{oracle}");
    }
    assert_eq!(kind("20240102 03:04:05,host,app,10.0.0.5,1,0,CONNECT,shop,,0"), Some(Kind::MysqlAudit));
}

#[test]
fn neptune() {
    check(
        Kind::NeptuneAudit,
        "1590000000123456, 10.0.0.5:51000, 10.0.0.1:8182, HTTP_POST, arn:aws:iam::123456789012:user/anna, {\"a\":\"b, c\"}, {\"user-agent\":\"curl/8\"}, g.V().drop()\n",
        &[
            ("db.event", "query"),
            ("db.client.address", "10.0.0.5"),
            ("db.auth.identity", "arn:aws:iam::123456789012:user/anna"),
            ("db.user", "anna"),
            ("db.application", "curl/8"),
            ("db.statement", "g.V().drop()"),
            ("db.statement.class", "WRITE"),
            ("time", "1590000000123"),
        ],
    );
    check(
        Kind::NeptuneAudit,
        "1590000000123456,10.0.0.5:1,10.0.0.1:8182,Websocket,,,,g.V(1),\n",
        &[("db.statement", "g.V(1),"), ("db.auth.identity", ""), ("db.statement.class", "READ")],
    );
}

#[test]
fn redis() {
    check(
        Kind::RedisSlow,
        r#"{"CacheClusterId": "c1","CacheNodeId": "0001","Id": 296,"Timestamp": 1605631822,"Duration (us)": 3000,"Command": "CONFIG SET ... (2 more arguments)","ClientAddress": "10.0.0.5:55452","ClientName": "x"}"#,
        &[
            ("db.event", "config_change"),
            ("db.command", "CONFIG SET"),
            ("db.instance", "c1"),
            ("db.client.address", "10.0.0.5"),
            ("db.duration.ms", "3"),
            ("time", "1605631822000"),
        ],
    );
    check(
        Kind::RedisSlow,
        "c1,0001,1605631822,30,GET ... (1 more arguments),10.0.0.5:55452,x",
        &[("db.command", "GET"), ("db.statement.class", "READ"), ("db.application", "x")],
    );
    check(
        Kind::RedisSlow,
        "c1,0001,7,1605631822,30,FLUSHALL,10.0.0.5:55452,",
        &[("db.command", "FLUSHALL"), ("db.event", "ddl"), ("db.query.id", "7")],
    );
    check(
        Kind::RedisEngine,
        "18780:M 24 Nov 2026 02:54:03.880 * Ready to accept connections",
        &[("db.event", "startup"), ("db.role", "M"), ("db.severity", "*"), ("time", "1795488843880")],
    );
    check(
        Kind::RedisEngine,
        r#"{"CacheClusterId":"c1","CacheNodeId":"0001","LogLevel":"NOTICE","Role":"M","Time":"2026-11-24 02:54:03.880 UTC","Message":"Background saving terminated with success"}"#,
        &[("db.event", "other"), ("db.severity", "NOTICE"), ("time", "1795488843880")],
    );
}

#[test]
fn flow_logs() {
    check(
        Kind::FlowLog,
        "2 123456789012 eni-1 203.0.113.9 10.0.0.2 40000 5432 6 10 840 1590000000 1590000060 ACCEPT OK",
        &[("db.event", "flow"), ("srcaddr", "203.0.113.9"), ("dstport", "5432"), ("action", "ACCEPT"), ("time", "1590000000000")],
    );
    check(Kind::FlowLog, "2 123456789012 eni-1 - - - - - - - 1590000000 1590000060 - NODATA", &[("srcaddr", ""), ("log-status", "NODATA")]);
    check(Kind::FlowLog, "2 123456789012 eni-1 203.0.113.9", &[("db.event", "other")]);
    check(
        Kind::FlowLog,
        "dstport srcaddr dstaddr action unheard-of\n5432 1.2.3.4 10.0.0.2 REJECT z\n",
        &[("dstport", "5432"), ("srcaddr", "1.2.3.4"), ("action", "REJECT")],
    );
    let mut decoder = LogDecoder { flow_format: FlowFormat::parse("${action} ${srcaddr} ${dstaddr} ${flow-direction}"), ..LogDecoder::default() };
    let (events, _) = decode_with(&mut decoder, Kind::FlowLog, b"ACCEPT 1.2.3.4 10.0.0.2 ingress\n");
    assert_eq!((events[0]["flow-direction"].as_str(), events[0]["action"].as_str()), ("ingress", "ACCEPT"));
    assert_eq!(FlowFormat::parse("${version}"), None);
}

#[test]
fn one_login_rule_serves_all() {
    let lines = [
        (Kind::Postgres, "2026-11-24 02:52:55 UTC:10.0.0.7(46932):app@shop:[16223]:FATAL:  password authentication failed for user \"app\""),
        (Kind::MysqlAudit, "20261124 02:54:31,vm,app,10.0.0.7,6,0,FAILED_CONNECT,,,1045"),
        (Kind::MysqlError, "2026-11-24  2:54:31 6 [Warning] Access denied for user 'app'@'10.0.0.7' (using password: YES)"),
        (Kind::MysqlGeneral, "261124  2:54:31\t     4 Connect\tAccess denied for user 'app'@'10.0.0.7' (using password: YES)"),
        (
            Kind::SqlServer,
            "2024-01-02 03:04:05.67 Logon       Login failed for user 'app'. Reason: Password did not match that for the login provided. [CLIENT: 10.0.0.7]",
        ),
        (Kind::RedshiftConnection, "authentication failure |Mon, 19 Aug 2013 17:59:53:353|10.0.0.7 |1 |2|dev|app|password |0|"),
        (
            Kind::OracleAudit,
            "LENGTH: \"300\"\nSESSIONID:[5] \"12345\" USERID:[3] \"app\" ACTION:[3] \"100\" RETURNCODE:[4] \"1017\" COMMENT$TEXT:[96] \"Authenticated by: DATABASE; Client address: (ADDRESS=(PROTOCOL=tcp)(HOST=10.0.0.7)(PORT=49215))\"",
        ),
        (Kind::DocdbAudit, r#"{"atype":"authenticate","ts":1,"remote_ip":"10.0.0.7:1","param":{"user":"app","success":false},"result":"18"}"#),
    ];
    for (kind, line) in lines {
        check(
            kind,
            line,
            &[
                ("db.event", "login_failed"),
                ("db.user", "app"),
                ("db.client.address", "10.0.0.7"),
                ("db.reason", "bad_credentials"),
                ("db.outcome", "failure"),
            ],
        );
    }
}

/// The words of `db.event` and `db.reason` are those of the documentation.
fn assert_documented(events: &[Fields]) {
    for event in events {
        assert!(tax::EVENTS.iter().any(|(word, _)| *word == event["db.event"]), "{event:#?}");
        assert!(event.get("db.reason").is_none_or(|reason| tax::REASONS.iter().any(|(word, _)| word == reason)), "{event:#?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_or_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..400), lines in r#"(?s)(\{"atype":"|authenticate|","param":\{|"Command":"|\}|initiating session\||\||2024-01-02 03:04:05\.67 |Logon |Error: |'2020-01-24T10:00:00Z UTC \[ db=|1590000000123456,|2 123456789012 eni-1 |Wed Oct 21 11:58:08 2020 -04:00\n|LENGTH : '1'\n|ACTION :\[3\] 'a'|USERID:\[9\] "|<AuditRecord>|<Sql_Text>|</AuditRecord>|&lt;| - |\n|.){0,30}"#) {
        let mut decoder = LogDecoder::default();
        for kind in Kind::ALL {
            for text in [&bytes[..], lines.as_bytes()] {
                let (events, outcome) = decode_with(&mut decoder, *kind, text);
                prop_assert_eq!(events.len() as u64, outcome.events);
                prop_assert!(!events.is_empty() || outcome.skipped_bytes > 0 || text.iter().all(u8::is_ascii_whitespace));
                assert_documented(&events);
            }
            let _ = detect("g", "s", &bytes);
            let _ = detect("g", "s", lines.as_bytes());
        }
    }
}

/// A hostile text of 64 KiB takes an unoptimised build far less than this: no parser is quadratic.
#[test]
fn linear() {
    let parts: &[&str] = &[
        "2026-11-24 02:52:55 UTC:10.0.0.7(1):a",
        "2026-11-24 02:52:55 UTC:10.0.0.7(1):a@b:[1]:DETAIL:  x\n",
        "@b:[1]:LOG:  x",
        "\n",
        "20261124 02:54:31,vm,x\n",
        ",h,1,2,CONNECT,,,0",
        ",h,1,0,FAILED_CONNECT,,,1045\n",
        "20261124 02:54:31,vm,a,h,1,0,DISCONNECT,,,0\n",
        "261124  2:55:05\t     3 Connect\tx\n",
        "# Time: \n",
        "# User@Host: x\n",
        "2026-11-24  2:54:31 8 [Warning] Access denied for user 'a\n",
        "'@'h' (using password: YES)\n",
        "initiating session|",
        "{\"atype\":",
        "password ",
        "LENGTH : '1'\n",
        "LENGTH : '1'\nACTION :[9] 'x\n",
        "LENGTH : '1'\nACTION :[9] 'x' ",
        "Wed Oct 21 11:58:08 2020 -04:00\n",
        "<AuditRecord>\n",
        "<AuditRecord><Sql_Text>&",
        "<AuditRecord",
        "'2020-01-24T10:00:00Z UTC [ db=",
    ];
    let mut decoder = LogDecoder::default();
    for part in parts {
        let text = part.repeat((1 << 16) / part.len());
        for kind in Kind::ALL {
            let start = std::time::Instant::now();
            decoder.decode(&Batch { route: &Route::of(*kind), text: text.as_bytes(), pieces: &[], stream: 0, now_ms: 0 }, |_| {});
            assert!(start.elapsed().as_millis() < 1500, "{kind:?} {part:?} took {:?}", start.elapsed());
        }
    }
}
