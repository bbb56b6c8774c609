//! Redshift's connection, user and user-activity logs.
//!
//! In: the first two as columns between `|`, padded with blanks; the third as `'time UTC [ db=… user=… pid=… ]' LOG: SQL`. Out: one
//! event a row or statement. Invariant: a connection row counts only if its event word, process id and duration stand where the
//! server writes them, so a name with `|` or a newline in it makes the row `log_forgery`.

use super::{
    LogEvent, LogFields, Sink, When,
    scan::{self, between, cut},
    statement::{self, put_redacted},
    tax::Tax,
};

/// Columns of a connection row: nine in the oldest logs, 22 today.
const COLUMNS: std::ops::RangeInclusive<usize> = 9..=24;
/// How far a name with a newline may reach, with its padding, in bytes.
const REACH: usize = 300;

const CONNECTION_EVENTS: &[(&[u8], &str)] = &[
    (b"initiating session", "login_succeeded"),
    (b"authenticated", "authenticated"),
    (b"authentication failure", "login_failed"),
    (b"disconnecting session", "logout"),
    (b"set application_name", "other"),
];

/// The connection log.
pub(super) fn connections<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let (line, next) = scan::line(text, at);
        at = next;
        if line.trim_ascii().is_empty() {
            sink.skip(line.len());
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"redshift");
        let Some(when) = connection(line, fields) else {
            // The rest of a broken row is whatever comes within a name's reach.
            let mut end = start + line.len();
            while at < text.len() && at - start <= REACH {
                let (line, next) = scan::line(text, at);
                (end, at) = (at + line.len(), next);
                if line.split(|byte| *byte == b'|').count() >= *COLUMNS.start() {
                    break;
                }
            }
            fields.begin_event();
            fields.put(Tax::Engine, b"redshift");
            let header = line.starts_with(b"event");
            fields.put(Tax::Event, if header { b"other" } else { b"log_forgery" });
            fields.put(Tax::Forged, if header { b"" } else { b"true" });
            put_redacted(fields, Tax::Message, &text[start..end]);
            sink.emit(fields, "redshift", start, end, When::Unknown);
            continue;
        };
        sink.emit(fields, "redshift", start, start + line.len(), when);
    }
}

/// Sets a row's fields; `None` if it isn't as the server writes one.
fn connection(line: &[u8], fields: &mut LogFields) -> Option<When> {
    let mut columns = [&b""[..]; 24];
    let mut count = 0;
    for column in line.split(|byte| *byte == b'|') {
        *columns.get_mut(count)? = column.trim_ascii();
        count += 1;
    }
    let [word, time, host, port, pid, database, user, method, duration, tls, cipher, ..] = columns;
    let event = CONNECTION_EVENTS.iter().find(|(known, _)| *known == word)?.1;
    if !COLUMNS.contains(&count) || scan::number(pid).is_none() || scan::number(duration).is_none() {
        return None;
    }
    fields.put(Tax::Event, event.as_bytes());
    fields.put(Tax::ClientAddress, if host == b"[local]" { b"local" } else { host.strip_prefix(b"::ffff:").unwrap_or(host) });
    fields.put(Tax::ClientPort, port);
    fields.put(Tax::SessionPid, pid);
    fields.put(Tax::Name, database);
    fields.put(Tax::User, user.strip_prefix(b"IAM:").or_else(|| user.strip_prefix(b"IAMA:")).unwrap_or(user));
    fields.put(Tax::AuthMethod, method);
    fields.put(Tax::TlsVersion, tls);
    fields.put(Tax::TlsCipher, cipher);
    fields.put(Tax::Tls, if tls.is_empty() { b"false" } else { b"true" });
    if event == "logout"
        && let Some(microseconds) = scan::number(duration)
    {
        fields.put_number(Tax::Duration, microseconds / 1000);
    }
    match event {
        "login_failed" => {
            fields.put(Tax::Outcome, b"failure");
            fields.put(Tax::Reason, b"bad_credentials");
        }
        "login_succeeded" => fields.put(Tax::Outcome, b"success"),
        _ => {}
    }
    fields.put(Tax::AuthIdentity, columns[14]);
    fields.put(Tax::Application, columns[15]);
    fields.put(Tax::SessionId, columns[20]);
    Some(record_time(time))
}

/// `Mon, 19 Aug 2013 17:59:53:353`, or ISO.
fn record_time(time: &[u8]) -> When {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    if let Some(stamp) = scan::date_time(time) {
        return When::At(stamp.ms);
    }
    let read = || {
        let rest = time.get(5..)?;
        let (day, rest) = cut(rest, b" ")?;
        let (month, rest) = cut(rest, b" ")?;
        let (year, rest) = cut(rest, b" ")?;
        let month = MONTHS.chunks(3).position(|known| known == month)? as i64 + 1;
        let fraction = rest.get(9..).and_then(scan::number).unwrap_or(0).min(999);
        let date = scan::civil_ms(scan::number(year)?.min(9999) as i64, month, scan::number(day)?.min(99) as i64, 0)?;
        Some(date + scan::clock_ms(rest)? + fraction as i64)
    };
    read().map_or(When::Unknown, When::At)
}

/// The user log.
pub(super) fn users<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let (line, next) = scan::line(text, at);
        at = next;
        if line.trim_ascii().is_empty() {
            sink.skip(line.len());
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"redshift");
        let when = user(line, fields).unwrap_or_else(|| {
            fields.begin_event();
            fields.put(Tax::Engine, b"redshift");
            fields.put(Tax::Event, b"other");
            put_redacted(fields, Tax::Message, line);
            When::Unknown
        });
        sink.emit(fields, "redshift", start, start + line.len(), when);
    }
}

/// `userid|username|oldusername|action|usecreatedb|usesuper|usecatupd|valuntil|pid|xid|recordtime`.
fn user(line: &[u8], fields: &mut LogFields) -> Option<When> {
    let mut columns = [&b""[..]; 12];
    for (index, column) in line.split(|byte| *byte == b'|').enumerate() {
        *columns.get_mut(index)? = column.trim_ascii();
    }
    let [id, name, old, action, create, superuser, catalog, _, pid, _, time, _] = columns;
    scan::number(id)?;
    let command: &[u8] = match action {
        b"Create" | b"create" => b"CREATE USER",
        b"Drop" | b"drop" => b"DROP USER",
        b"Alter" | b"alter" => b"ALTER USER",
        b"Rename" | b"rename" => b"RENAME USER",
        _ => return None,
    };
    fields.put(Tax::Event, b"account_change");
    fields.put(Tax::Command, command);
    fields.put(Tax::StatementClass, b"ROLE");
    fields.put(Tax::ObjectType, b"USER");
    fields.put(Tax::ObjectName, name);
    fields.put(Tax::SessionPid, pid);
    fields.put_with(Tax::Parameters, |arena| {
        for (name, value) in [(&b"usecreatedb="[..], create), (b" usesuper=", superuser), (b" usecatupd=", catalog), (b" oldusername=", old)] {
            if !value.is_empty() {
                arena.extend_from_slice(name);
                arena.extend_from_slice(value);
            }
        }
    });
    Some(record_time(time))
}

/// The user activity log.
pub(super) fn activity<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let start = at;
        at = scan::line(text, at).1;
        while at < text.len() && head(&text[at..]).is_none() {
            at = scan::line(text, at).1;
        }
        let raw = text[start..at].trim_ascii_end();
        if raw.is_empty() {
            sink.skip(at - start);
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"redshift");
        let mut when = When::Unknown;
        if let Some((stamp, names)) = head(raw)
            && let Some((inside, sql)) = cut(&raw[names..], b" ]' LOG: ")
        {
            when = stamp;
            fields.put(Tax::Name, between(inside, b"db=", b" user=").unwrap_or_default());
            fields.put(Tax::User, between(inside, b" user=", b" pid=").unwrap_or_default());
            fields.put(Tax::SessionPid, between(inside, b" pid=", b" userid=").unwrap_or_default());
            fields.put(Tax::QueryId, cut(inside, b" xid=").map_or(b"", |(_, xid)| xid));
            let event = statement::put(fields, sql);
            fields.put(Tax::Event, event.as_bytes());
        } else {
            fields.put(Tax::Event, b"other");
            put_redacted(fields, Tax::Message, raw);
        }
        sink.emit(fields, "redshift", start, start + raw.len(), when);
    }
}

/// `'2020-01-24T10:00:00Z UTC [ ` and what stands behind it.
fn head(line: &[u8]) -> Option<(When, usize)> {
    let stamp = scan::date_time(line.strip_prefix(b"'")?)?;
    let rest = &line[1 + stamp.len..];
    let zone = rest.iter().take(10).position(|byte| *byte == b'[')?;
    Some((When::At(stamp.ms), 1 + stamp.len + zone + 1))
}
