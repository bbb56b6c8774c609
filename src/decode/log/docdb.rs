//! DocumentDB's audit and profiler logs: one JSON object a line.
//!
//! In: `{"atype":…,"ts":…,"remote_ip":…,"users":[…],"param":{…},"result":…}`. Out: one event an object. Invariant: `result` counts
//! as success only when it is 0 as number or text; every data operation is `authCheck`, so the command is in `param`.

use super::{LogEvent, LogFields, Sink, json, scan, statement::put_redacted, tax::Tax};

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    plain: Vec<u8>,
}

impl Scratch {
    pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>, profiler: bool) {
        let text = sink.batch.text;
        let mut at = 0;
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            let start = at;
            at = next;
            if line.trim_ascii().is_empty() {
                sink.skip(line.len());
                continue;
            }
            fields.begin_event();
            fields.put(Tax::Engine, b"docdb");
            let when = if profiler { self.profile(line, fields) } else { self.audit(line, fields) };
            sink.emit(fields, "docdb", start, start + line.len(), when.into());
        }
    }

    fn audit(&mut self, line: &[u8], fields: &mut LogFields) -> Option<i64> {
        let Some(kind) = json::member(line, "atype").map(json::text) else {
            fields.put(Tax::Event, b"other");
            put_redacted(fields, Tax::Message, line);
            return None;
        };
        let param = json::member(line, "param").unwrap_or(b"{}");
        if let Some(remote) = json::member(line, "remote_ip") {
            json::put_endpoint(fields, json::text(remote));
        }
        if let Some(user) = json::member(line, "users").and_then(json::first) {
            json::put(fields, Tax::User, json::member(user, "user"));
            json::put(fields, Tax::Name, json::member(user, "db"));
        }
        let result = json::member(line, "result").or_else(|| json::member(param, "error")).map(json::text).unwrap_or_default();
        let failed = !matches!(result, b"0" | b"" | b"ok");
        fields.put(Tax::Outcome, if failed { b"failure" } else { b"success" });
        if failed {
            fields.put(Tax::ErrorCode, result);
        }
        let command = if kind == b"authCheck" { json::member(param, "command").map(json::text).unwrap_or(kind) } else { kind };
        fields.put(Tax::Command, command);
        json::put(fields, Tax::Namespace, json::member(param, "ns"));
        let (event, class) = judge(command);
        if event == "login" {
            if !fields.is_set(Tax::User) {
                json::put(fields, Tax::User, json::member(param, "user"));
                json::put(fields, Tax::Name, json::member(param, "db"));
            }
            json::put(fields, Tax::AuthMethod, json::member(param, "mechanism"));
            let refused = failed || json::member(param, "success").is_some_and(|success| json::text(success) == b"false");
            fields.put(Tax::Event, if refused { b"login_failed" } else { b"login_succeeded" });
            if refused {
                fields.put(Tax::Reason, b"bad_credentials");
            }
        } else {
            if failed && matches!(result, b"13" | b"33") {
                fields.put(Tax::Reason, b"permission_denied");
            }
            fields.put(Tax::Event, if failed { b"error" } else { event.as_bytes() });
            fields.put(Tax::StatementClass, class.as_bytes());
            json::put(
                fields,
                Tax::ObjectName,
                json::member(param, "user").or_else(|| json::member(param, "role")).or_else(|| json::member(param, "ns")),
            );
            json::put_masked(fields, Tax::Statement, Some(json::member(param, "args").unwrap_or(param)), &mut self.plain);
        }
        let time = json::member(line, "ts")?;
        let time = json::member(time, "$date").unwrap_or(time);
        scan::number(json::text(time)).map(|ms| ms as i64).or_else(|| scan::date_time(json::text(time)).map(|stamp| stamp.ms))
    }

    fn profile(&mut self, line: &[u8], fields: &mut LogFields) -> Option<i64> {
        let Some(operation) = json::member(line, "op") else {
            fields.put(Tax::Event, b"other");
            put_redacted(fields, Tax::Message, line);
            return None;
        };
        let command = json::text(operation);
        fields.put(Tax::Event, judge(command).0.as_bytes());
        fields.put(Tax::StatementClass, judge(command).1.as_bytes());
        fields.put(Tax::Command, command);
        json::put(fields, Tax::Namespace, json::member(line, "ns"));
        json::put(fields, Tax::User, json::member(line, "user"));
        json::put(fields, Tax::Application, json::member(line, "appName"));
        json::put(fields, Tax::Duration, json::member(line, "millis"));
        json::put(fields, Tax::Rows, json::member(line, "nreturned"));
        if let Some(client) = json::member(line, "client") {
            json::put_endpoint(fields, json::text(client));
        }
        json::put_masked(fields, Tax::Statement, json::member(line, "command"), &mut self.plain);
        scan::number(json::text(json::member(line, "ts")?)).map(|ms| ms as i64)
    }
}

/// Commands, the event and the statement's class.
const COMMANDS: &[(&[u8], &str, &str)] = &[
    (b"authenticate", "login", ""),
    (b"find", "query", "READ"),
    (b"aggregate", "query", "READ"),
    (b"count", "query", "READ"),
    (b"distinct", "query", "READ"),
    (b"getMore", "query", "READ"),
    (b"query", "query", "READ"),
    (b"getmore", "query", "READ"),
    (b"insert", "query", "WRITE"),
    (b"update", "query", "WRITE"),
    (b"delete", "query", "WRITE"),
    (b"remove", "query", "WRITE"),
    (b"findAndModify", "query", "WRITE"),
    (b"bulkWrite", "query", "WRITE"),
    (b"createUser", "account_change", "ROLE"),
    (b"dropUser", "account_change", "ROLE"),
    (b"dropAllUsersFromDatabase", "account_change", "ROLE"),
    (b"updateUser", "account_change", "ROLE"),
    (b"createRole", "account_change", "ROLE"),
    (b"updateRole", "account_change", "ROLE"),
    (b"dropRole", "account_change", "ROLE"),
    (b"dropAllRolesFromDatabase", "account_change", "ROLE"),
    (b"grantRolesToUser", "grant", "ROLE"),
    (b"revokeRolesFromUser", "grant", "ROLE"),
    (b"grantRolesToRole", "grant", "ROLE"),
    (b"revokeRolesFromRole", "grant", "ROLE"),
    (b"grantPrivilegesToRole", "grant", "ROLE"),
    (b"revokePrivilegesFromRole", "grant", "ROLE"),
    (b"auditConfigure", "audit_change", "MISC"),
    (b"setAuditConfig", "audit_change", "MISC"),
    (b"createDatabase", "ddl", "DDL"),
    (b"dropDatabase", "ddl", "DDL"),
    (b"createCollection", "ddl", "DDL"),
    (b"dropCollection", "ddl", "DDL"),
    (b"create", "ddl", "DDL"),
    (b"drop", "ddl", "DDL"),
    (b"createIndex", "ddl", "DDL"),
    (b"createIndexes", "ddl", "DDL"),
    (b"dropIndex", "ddl", "DDL"),
    (b"dropIndexes", "ddl", "DDL"),
    (b"renameCollection", "ddl", "DDL"),
    (b"modifyChangeStreams", "config_change", "MISC"),
    (b"killOp", "killed", "MISC"),
];

fn judge(command: &[u8]) -> (&'static str, &'static str) {
    COMMANDS.iter().find(|(name, ..)| *name == command).map_or(("query", "MISC"), |(_, event, class)| (event, class))
}
