//! Records of both forms, and what can't be told for true.

use super::super::{Batch, Kind, LogDecoder, Route, Tax, tests::check};

/// The words of `db.event`, in order.
fn told(kind: Kind, text: &str) -> Vec<String> {
    let mut events = Vec::new();
    let route = Route::of(kind);
    LogDecoder::default().decode(&Batch { route: &route, text: text.as_bytes(), pieces: &[], stream: 0, now_ms: 0 }, |event| {
        events.push(String::from_utf8_lossy(event.get(Tax::Event).unwrap_or_default()).into_owned());
    });
    events
}

const ADDRESS: &str = "Authenticated by: DATABASE; Client address: (ADDRESS=(PROTOCOL=tcps)(HOST=10.0.0.7)(PORT=49215))";

fn field(name: &str, value: &str) -> String {
    format!("{name}:[{}] \"{value}\" ", value.len())
}

#[test]
fn logons() {
    let record = |user: &str, code: &str| {
        format!(
            "Thu May 13 23:20:32 2021 -04:00\nLENGTH: \"385\"\n{}{}{}{}{}DBID:[5] \"12345\"\n",
            field("SESSIONID", "12354"),
            field("USERID", user),
            field("ACTION", "100"),
            field("RETURNCODE", code),
            field("COMMENT$TEXT", ADDRESS)
        )
    };
    let expected = [
        ("db.user", "SCOTT"),
        ("db.client.address", "10.0.0.7"),
        ("db.client.port", "49215"),
        ("db.tls", "true"),
        ("db.auth.method", "password"),
        ("db.session.id", "12354"),
        ("time", "1620962432000"),
    ];
    check(Kind::OracleAudit, &record("SCOTT", "0"), &expected);
    for (code, event, reason) in [
        ("0", "login_succeeded", ""),
        ("1017", "login_failed", "bad_credentials"),
        ("28000", "login_failed", "locked"),
        ("28001", "login_failed", "expired"),
        ("1045", "login_failed", "not_permitted"),
        ("9999", "login_failed", "other"),
    ] {
        check(Kind::OracleAudit, &record("SCOTT", code), &[("db.event", event), ("db.reason", reason), ("db.command", "CONNECT")]);
    }
    // A name that imitates fields is a name.
    let forged = "x\" RETURNCODE:[1] \"0\" USERID:[3] \"SYS";
    check(Kind::OracleAudit, &record(forged, "1017"), &[("db.user", forged), ("db.event", "login_failed")]);
    check(Kind::OracleAudit, &record("x\nLENGTH: \"1\"", "1017"), &[("db.event", "login_failed"), ("log.forged", "true")]);
}

/// What the server writes of SYS: `STATUS` instead of `RETURNCODE`, a statement instead of a number.
fn of_sys(action: &str, privilege: &str, status: &str, address: &str) -> String {
    let address = if address.is_empty() { String::new() } else { format!("(ADDRESS=(PROTOCOL=tcp)(HOST={address})(PORT=1))") };
    let field = |name: &str, value: &str| format!("{name}:[{}] '{value}'\n", value.len());
    format!(
        "Wed Oct  7 11:58:08 2020 -04:00\nLENGTH : '392'\n{}{}{}{}CLIENT TERMINAL:[0] ''\n{}DBID:[3] '123'\nSESSIONID:[1] '7'\n{}ACTION NUMBER:[3] '{}'\n\n",
        field("ACTION ", action),
        field("DATABASE USER", "/"),
        field("PRIVILEGE ", privilege),
        field("CLIENT USER", "oracle"),
        field("STATUS", status),
        field("CLIENT ADDRESS", &address),
        if action == "CONNECT" { 100 } else { 3 }
    )
}

#[test]
fn sys() {
    let expected = [
        ("db.event", "login_succeeded"),
        ("db.user", "SYS"),
        ("db.auth.identity", "oracle"),
        ("db.command", "CONNECT AS SYSDBA"),
        ("db.client.address", "local"),
        ("time", "1602086288000"),
    ];
    check(Kind::OracleAudit, &of_sys("CONNECT", "SYSDBA", "0", ""), &expected);
    let expected = [("db.event", "login_failed"), ("db.reason", "not_permitted"), ("db.client.address", "10.0.0.9")];
    check(Kind::OracleAudit, &of_sys("CONNECT", "SYSDBA", "1031", "10.0.0.9"), &expected);
    for (statement, event, class) in [
        ("ALTER SYSTEM SET audit_trail='NONE' SCOPE=SPFILE", "audit_change", "MISC"),
        ("NOAUDIT ALL", "audit_change", "MISC"),
        ("select 'a',\n  'b' from x$y where z = '1'\nDATABASE USER:[1] 'q'", "query", "READ"),
        ("DROP USER app CASCADE", "account_change", "ROLE"),
    ] {
        check(
            Kind::OracleAudit,
            &of_sys(statement, "SYSDBA", "0", ""),
            &[("db.event", event), ("db.statement.class", class), ("db.statement", statement), ("db.user", "SYS")],
        );
    }
    // A length that doesn't hold, as where the text was cut or counted in another character set.
    let cut = of_sys("select 'a', 'b' from x", "NONE", "0", "").replace(":[22]", ":[3000]");
    check(Kind::OracleAudit, &cut, &[("db.event", "query"), ("db.user", "SYS"), ("db.statement", "select 'a', 'b' from x")]);
    let two = format!("Audit file /rdsdbdata/admin/ORCL/adump/x.aud\nOracle Database 19c\n\n{}{cut}", of_sys("CONNECT", "SYSDBA", "0", ""));
    assert_eq!(told(Kind::OracleAudit, &two), ["login_succeeded", "query"]);
}

#[test]
fn xml() {
    let record = |action: &str, code: &str, rest: &str| {
        format!(
            "<AuditRecord><Audit_Type>1</Audit_Type><Session_Id>250064</Session_Id><StatementId>3</StatementId><EntryId>1</EntryId>\
             <Extended_Timestamp>2024-03-29T14:54:00.782747Z</Extended_Timestamp><DB_User>R&amp;D</DB_User><OS_User>anna</OS_User>\
             <Userhost>WORKGROUP\\X</Userhost><OS_Process>14032</OS_Process><Action>{action}</Action><Returncode>{code}</Returncode>{rest}\n</AuditRecord>\n"
        )
    };
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Audit xmlns=\"http://xmlns.oracle.com/oracleas/schema/dbserver_audittrail-11_2.xsd\">\n<Version>11.2</Version>\n";
    check(
        Kind::OracleAudit,
        &format!("{head}{}</Audit>\n", record("100", "1017", &format!("<Comment_Text>{ADDRESS}</Comment_Text>"))),
        &[
            ("db.event", "login_failed"),
            ("db.reason", "bad_credentials"),
            ("db.user", "R&D"),
            ("db.client.address", "10.0.0.7"),
            ("db.session.id", "250064"),
            ("db.session.pid", "14032"),
            ("time", "1711724040782"),
        ],
    );
    check(
        Kind::OracleAudit,
        &record(
            "3",
            "0",
            "<Object_Schema>HR</Object_Schema><Object_Name>PAY</Object_Name>\n<Sql_Text>SELECT *\nFROM hr.pay WHERE a &lt; &apos;b&apos;</Sql_Text>",
        ),
        &[("db.event", "query"), ("db.statement.class", "READ"), ("db.statement", "SELECT *\nFROM hr.pay WHERE a < 'b'")],
    );
    check(
        Kind::OracleAudit,
        &record("114", "0", "<Object_Name>DBA</Object_Name>"),
        &[("db.event", "grant"), ("db.command", "GRANT"), ("db.object.name", "DBA")],
    );
    check(Kind::OracleAudit, &record("105", "0", ""), &[("db.event", "audit_change"), ("db.command", "NOAUDIT")]);
    check(
        Kind::OracleAudit,
        &record("12", "1031", "<Object_Schema>HR</Object_Schema><Object_Name>PAY</Object_Name>"),
        &[("db.event", "error"), ("db.reason", "permission_denied"), ("db.object.name", "HR.PAY"), ("db.error.code", "1031")],
    );
    let password = "<Sql_Text>alter user x identified by &quot;Geheim1&quot;</Sql_Text>";
    check(
        Kind::OracleAudit,
        &record("43", "0", password),
        &[("db.event", "account_change"), ("db.statement", "alter user x identified by \"<redacted>\"")],
    );
    assert_eq!(told(Kind::OracleAudit, "<AuditRecord>\n<AuditRecord></AuditRecord><AuditRecord><Action>101</Action>"), ["other", "other", "logout"]);
}

#[test]
fn alert() {
    let text = "2022-07-18T01:02:03.123456+00:00\nStarting ORACLE instance (normal) (OS id: 1)\n\
                2022-07-18T01:02:04.123456+00:00\nALTER SYSTEM SET audit_trail='NONE' SCOPE=SPFILE;\nORA-00600: internal error code, arguments: [x]\n\
                ORA-01017: x\nMon Jul 18 01:02:03 2022\nShutting down instance (immediate)\nThread 1 advanced to log sequence 7\n";
    assert_eq!(told(Kind::OracleAlert, text), ["startup", "audit_change", "crash", "error", "shutdown", "other"]);
    check(
        Kind::OracleAlert,
        "2022-07-18T01:02:04.500000+02:00\nORA-01017: invalid username/password",
        &[("db.error.code", "01017"), ("db.event", "error"), ("time", "1658098924500")],
    );
}
