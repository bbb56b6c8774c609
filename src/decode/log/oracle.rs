//! Oracle's audit files and alert log.
//!
//! In: audit records as text (`NAME:[length] 'value'` behind a date and `LENGTH`) or XML (`<AuditRecord>`); the alert log's lines.
//! Out: one event a record or message. Invariant: a value of the text form is as long as the server says, so that nothing inside
//! it is taken for another field; in the XML form `<` inside a value is escaped.

mod alert;
mod record;

pub(super) use alert::decode as alert;

use super::{
    LogEvent, LogFields, Sink, When, scan,
    statement::{self, put_redacted},
    tax::Tax,
};
use record::Record;

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    plain: Vec<u8>,
}

impl Scratch {
    pub(super) fn audit<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        let (mut at, mut dated) = (0, None);
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            if line.starts_with(b"<AuditRecord") {
                let (record, end) = record::xml(text, at);
                self.emit(fields, sink, &record, (at, end));
                at = end;
            } else if line.starts_with(b"LENGTH") {
                let (mut record, end) = record::text(text, next);
                let (start, when) = dated.take().unwrap_or((at, When::Unknown));
                record.when = when;
                self.emit(fields, sink, &record, (start, end));
                at = end;
            } else if let Some(ms) = date(line) {
                if let Some((start, when)) = dated.replace((at, When::At(ms))) {
                    other(fields, sink, start, at, when);
                }
                at = next;
            } else {
                if let Some((start, when)) = dated.take() {
                    other(fields, sink, start, at, when);
                }
                if is_banner(line) {
                    sink.skip(next - at);
                } else {
                    other(fields, sink, at, next, When::Unknown);
                }
                at = next;
            }
        }
        if let Some((start, when)) = dated {
            other(fields, sink, start, text.len(), when);
        }
    }

    fn emit<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>, record: &Record<'_>, span: (usize, usize)) {
        if record.is_empty() {
            return other(fields, sink, span.0, span.1, record.when);
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"oracle");
        let name = plain(record.user, record.escaped, &mut self.plain);
        if name.contains(&b'\n') {
            fields.put(Tax::Forged, b"true");
        }
        // Who is let in by the operating system is SYS.
        fields.put(Tax::User, if name == b"/" { b"SYS" } else { name });
        if name == b"/" {
            fields.put(Tax::AuthIdentity, record.os_user);
        }
        fields.put(Tax::SessionId, record.session);
        fields.put(Tax::SessionPid, record.process);
        fields.put(Tax::QueryId, record.statement);
        put_client(fields, record);
        let failed = !matches!(record.code, b"" | b"0");
        if !record.code.is_empty() {
            fields.put(Tax::Outcome, if failed { b"failure" } else { b"success" });
        }
        if failed {
            fields.put(Tax::ErrorCode, record.code);
        }
        let event = self.judge(fields, record, failed);
        fields.put(Tax::Event, event.as_bytes());
        sink.emit(fields, "oracle", span.0, span.1, record.when);
    }

    /// The word of `db.event`; sets what goes with it.
    fn judge(&mut self, fields: &mut LogFields, record: &Record<'_>, failed: bool) -> &'static str {
        let connects = record.sql.trim_ascii().eq_ignore_ascii_case(b"CONNECT");
        if connects || record.action == Some(LOGON) {
            fields.put_with(Tax::Command, |arena| {
                arena.extend_from_slice(b"CONNECT");
                if is_high(record.privilege) {
                    arena.extend_from_slice(b" AS ");
                    arena.extend_from_slice(record.privilege);
                }
            });
            put_method(fields, record);
            if failed {
                fields.put(Tax::Reason, login_reason(record.code));
                return "login_failed";
            }
            return "login_succeeded";
        }
        if matches!(record.action, Some(101 | 102)) || record.sql.trim_ascii().eq_ignore_ascii_case(b"DISCONNECT") {
            return "logout";
        }
        if failed && matches!(record.code, b"1031" | b"942" | b"1749" | b"1720" | b"990") {
            fields.put(Tax::Reason, b"permission_denied");
        }
        let known = record.action.and_then(|number| ACTIONS.iter().find(|(known, ..)| *known == number));
        let event = if record.sql.is_empty() {
            if let Some((_, command, class, _)) = known {
                fields.put(Tax::Command, command.as_bytes());
                fields.put(Tax::StatementClass, class.as_bytes());
            }
            known.map_or("query", |(.., event)| event)
        } else {
            let event = statement::put(fields, plain(record.sql, record.escaped, &mut self.plain));
            // Inside PL/SQL the text says little, the number all.
            known.filter(|_| event == "query").map_or(event, |(.., event)| event)
        };
        if !record.object.is_empty() && !fields.is_set(Tax::ObjectName) {
            fields.put_with(Tax::ObjectName, |arena| {
                if !record.owner.is_empty() {
                    arena.extend_from_slice(record.owner);
                    arena.push(b'.');
                }
                arena.extend_from_slice(record.object);
            });
        }
        if failed { "error" } else { event }
    }
}

/// Number of the action LOGON.
const LOGON: u64 = 100;

/// Numbers of actions (`AUDIT_ACTIONS`) for records without a statement: command, class, event.
const ACTIONS: &[(u64, &str, &str, &str)] = &[
    (1, "CREATE TABLE", "DDL", "ddl"),
    (2, "INSERT", "WRITE", "query"),
    (3, "SELECT", "READ", "query"),
    (6, "UPDATE", "WRITE", "query"),
    (7, "DELETE", "WRITE", "query"),
    (12, "DROP TABLE", "DDL", "ddl"),
    (15, "ALTER TABLE", "DDL", "ddl"),
    (17, "GRANT", "ROLE", "grant"),
    (18, "REVOKE", "ROLE", "grant"),
    (30, "AUDIT", "MISC", "audit_change"),
    (31, "NOAUDIT", "MISC", "audit_change"),
    (32, "CREATE DATABASE LINK", "DDL", "ddl"),
    (35, "ALTER DATABASE", "DDL", "ddl"),
    (41, "DROP TABLESPACE", "DDL", "ddl"),
    (43, "ALTER USER", "ROLE", "account_change"),
    (49, "ALTER SYSTEM", "DDL", "config_change"),
    (51, "CREATE USER", "ROLE", "account_change"),
    (52, "CREATE ROLE", "ROLE", "account_change"),
    (53, "DROP USER", "ROLE", "account_change"),
    (54, "DROP ROLE", "ROLE", "account_change"),
    (79, "ALTER ROLE", "ROLE", "account_change"),
    (85, "TRUNCATE TABLE", "WRITE", "query"),
    (104, "AUDIT", "MISC", "audit_change"),
    (105, "NOAUDIT", "MISC", "audit_change"),
    (108, "GRANT", "ROLE", "grant"),
    (109, "REVOKE", "ROLE", "grant"),
    (114, "GRANT", "ROLE", "grant"),
    (115, "REVOKE", "ROLE", "grant"),
];

/// Privileges that stand above every role.
fn is_high(privilege: &[u8]) -> bool {
    matches!(privilege, b"SYSDBA" | b"SYSOPER" | b"SYSBACKUP" | b"SYSDG" | b"SYSKM" | b"SYSRAC" | b"SYSASM")
}

/// Why a logon was refused, by the number of the `ORA-` error.
fn login_reason(code: &[u8]) -> &'static [u8] {
    match code {
        b"1017" | b"28546" => b"bad_credentials",
        b"1005" => b"no_password",
        b"28000" => b"locked",
        b"28001" | b"28002" => b"expired",
        b"1031" | b"1045" | b"28009" | b"1035" => b"not_permitted",
        b"18" | b"20" | b"2391" => b"too_many_connections",
        _ => b"other",
    }
}

/// The client's address: the last one, since the identity before it may hold another.
fn put_client(fields: &mut LogFields, record: &Record<'_>) {
    let told = if record.address.is_empty() { record.comment } else { record.address };
    match scan::cut_last(told, b"(PROTOCOL=") {
        Some((_, rest)) => {
            let upto = |rest: &'_ [u8]| memchr::memchr(b')', rest).unwrap_or(rest.len());
            let protocol = &rest[..upto(rest)];
            fields.put(Tax::Tls, if protocol.eq_ignore_ascii_case(b"tcps") { b"true" } else { b"" });
            match scan::cut(rest, b"(HOST=") {
                Some((_, host)) => fields.put(Tax::ClientAddress, &host[..upto(host)]),
                None if protocol.eq_ignore_ascii_case(b"beq") => fields.put(Tax::ClientAddress, b"local"),
                None => {}
            }
            if let Some((_, port)) = scan::cut(rest, b"(PORT=") {
                fields.put(Tax::ClientPort, &port[..upto(port)]);
            }
        }
        None if !record.address.is_empty() => fields.put(Tax::ClientAddress, record.address),
        // A session by the operating system comes from the machine itself.
        None if record.user == b"/" => fields.put(Tax::ClientAddress, b"local"),
        None => {}
    }
}

fn put_method(fields: &mut LogFields, record: &Record<'_>) {
    if let Some(method) = scan::between(record.comment, b"Authenticated by: ", b";") {
        fields.put(Tax::AuthMethod, if method == b"DATABASE" { b"password" } else { method });
    }
}

/// The value with XML's entities resolved.
fn plain<'a>(value: &'a [u8], escaped: bool, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !escaped || memchr::memchr(b'&', value).is_none() {
        return value;
    }
    const ENTITIES: [(&[u8], u8); 6] = [(b"&lt;", b'<'), (b"&gt;", b'>'), (b"&amp;", b'&'), (b"&apos;", b'\''), (b"&quot;", b'"'), (b"&#10;", b'\n')];
    scratch.clear();
    let mut at = 0;
    while at < value.len() {
        let entity = if value[at] == b'&' { ENTITIES.iter().find(|(name, _)| value[at..].starts_with(name)) } else { None };
        let (byte, len) = entity.map_or((value[at], 1), |(name, byte)| (*byte, name.len()));
        scratch.push(byte);
        at += len;
    }
    scratch
}

/// `Wed Oct 21 11:58:08 2020 -04:00`, or without a zone as the alert log of old writes it; milliseconds since the epoch.
fn date(line: &[u8]) -> Option<i64> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let is_day = matches!(line.get(..4)?, b"Mon " | b"Tue " | b"Wed " | b"Thu " | b"Fri " | b"Sat " | b"Sun ");
    let month = MONTHS.chunks(3).position(|month| line.get(4..7) == Some(month))? as i64 + 1;
    let day = scan::number(line.get(8..10)?.trim_ascii_start())? as i64;
    let ms = scan::clock_ms(line.get(11..19)?)?;
    let year = scan::number(line.get(20..24)?)? as i64;
    let zone = scan::zone_ms(line[24..].trim_ascii())?;
    is_day.then_some(scan::civil_ms(year, month, day, 0)? + ms - zone)
}

/// The head of an audit file, and XML's own lines.
fn is_banner(line: &[u8]) -> bool {
    const STARTS: [&[u8]; 20] = [
        b"Audit file ",
        b"Oracle Database ",
        b"With the ",
        b"Build label:",
        b"Version ",
        b"ORACLE_HOME",
        b"System name:",
        b"Node name:",
        b"Release:",
        b"Version:",
        b"Machine:",
        b"Instance name:",
        b"Redo thread mounted",
        b"Oracle process number",
        b"Unix process pid",
        b"<?xml",
        b"<Audit ",
        b"<Audit>",
        b"<Version>",
        b"</Audit>",
    ];
    line.trim_ascii().is_empty() || STARTS.iter().any(|start| line.starts_with(start))
}

fn other<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>, start: usize, end: usize, when: When) {
    let raw = sink.batch.text[start..end].trim_ascii_end();
    if raw.is_empty() {
        sink.skip(end - start);
        return;
    }
    fields.begin_event();
    fields.put(Tax::Engine, b"oracle");
    fields.put(Tax::Event, b"other");
    put_redacted(fields, Tax::Message, raw);
    sink.emit(fields, "oracle", start, start + raw.len(), when);
}

#[cfg(test)]
mod tests;
