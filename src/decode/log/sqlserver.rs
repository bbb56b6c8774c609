//! SQL Server's error log.
//!
//! In: `time source message`, where an error's number and state come in a line of their own before its text. Out: one event a
//! message, number and text joined. Invariant: the client's address is the last `[CLIENT: …]`, since a login's name may hold another.

use super::{
    LogEvent, LogFields, Sink, When,
    scan::{self, between, cut, cut_last, word},
    statement::put_redacted,
    tax::Tax,
};

/// Width that sources are padded to.
const SOURCE_WIDTH: usize = 12;

#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    start: usize,
    end: usize,
    ms: i64,
    source: &'a [u8],
    body: &'a [u8],
}

pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    let mut pending: Option<Entry<'_>> = None;
    while at < text.len() {
        let start = at;
        at = scan::line(text, at).1;
        while at < text.len() && head(&text[at..]).is_none() {
            at = scan::line(text, at).1;
        }
        let raw = text[start..at].trim_ascii_end();
        let Some((ms, source, body)) = head(raw) else {
            emit_rest(fields, sink, start, raw);
            continue;
        };
        let entry = Entry { start, end: start + raw.len(), ms, source, body: raw[body.min(raw.len())..].trim_ascii() };
        let before = pending.take();
        match before {
            Some(error) if error.ms == entry.ms && error.source == entry.source => emit(fields, sink, &entry, Some(&error)),
            Some(error) => emit(fields, sink, &error, None),
            None => {}
        }
        let joined = before.is_some_and(|error| error.ms == entry.ms && error.source == entry.source);
        if !joined {
            if is_number_line(entry.body) {
                pending = Some(entry);
            } else {
                emit(fields, sink, &entry, None);
            }
        }
    }
    if let Some(error) = pending {
        emit(fields, sink, &error, None);
    }
}

/// Time in milliseconds, source, and where the message begins.
fn head(line: &[u8]) -> Option<(i64, &[u8], usize)> {
    let stamp = scan::date_time(line)?;
    let rest = line[stamp.len..].strip_prefix(b" ")?;
    let source = word(rest);
    let body = stamp.len + 1 + source.len().max(SOURCE_WIDTH.min(rest.len()));
    (!source.is_empty()).then_some((stamp.ms, source, body))
}

fn is_number_line(body: &[u8]) -> bool {
    body.starts_with(b"Error: ") && memchr::memmem::find(body, b", Severity: ").is_some()
}

fn emit_rest<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>, start: usize, raw: &[u8]) {
    if raw.is_empty() {
        return;
    }
    fields.begin_event();
    fields.put(Tax::Engine, b"mssql");
    fields.put(Tax::Event, b"other");
    put_redacted(fields, Tax::Message, raw);
    sink.emit(fields, "mssql", start, start + raw.len(), When::Unknown);
}

fn emit<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>, entry: &Entry<'_>, error: Option<&Entry<'_>>) {
    fields.begin_event();
    fields.put(Tax::Engine, b"mssql");
    let number = error.unwrap_or(entry);
    let mut state: &[u8] = b"";
    if is_number_line(number.body) {
        fields.put(Tax::ErrorCode, between(number.body, b"Error: ", b",").unwrap_or_default());
        fields.put(Tax::Severity, between(number.body, b"Severity: ", b",").unwrap_or_default());
        state = cut(number.body, b"State: ").map_or(b"", |(_, state)| state.strip_suffix(b".").unwrap_or(state));
        fields.put(Tax::ErrorState, state);
    }
    fields.put(Tax::SessionPid, entry.source.strip_prefix(b"spid").unwrap_or_default());
    let event = judge(entry.body, state, fields);
    fields.put(Tax::Event, event.as_bytes());
    put_redacted(fields, Tax::Message, entry.body);
    sink.emit(fields, "mssql", number.start, entry.end, When::Zoneless(entry.ms));
}

/// Parts of messages and what they tell.
const WORDS: &[(&[u8], &str)] = &[
    (b"SQL Server is now ready for client connections", "startup"),
    (b"SQL Server is terminating", "shutdown"),
    (b"SQL Trace was stopped", "audit_change"),
    (b"SQL Server Audit", "audit_change"),
    (b"Audit: Server Audit", "audit_change"),
    (b"Configuration option '", "config_change"),
    (b"Setting database option ", "config_change"),
    (b"DBCC TRACEON", "config_change"),
    (b"structurally invalid", "garbage"),
    (b"Length specified in network packet payload did not match", "garbage"),
    (b"A network error occurred", "garbage"),
    (b"Stack Dump", "crash"),
];

fn judge(body: &[u8], state: &[u8], fields: &mut LogFields) -> &'static str {
    let client = cut_last(body, b"[CLIENT: ").map_or(&b""[..], |(_, client)| client.split(|byte| *byte == b']').next().unwrap_or_default());
    fields.put(Tax::ClientAddress, if client == b"<local machine>" { b"local" } else { client.trim_ascii() });
    if let Some(rest) = body.strip_prefix(b"Login failed for user '") {
        put_user(rest, fields);
        fields.put(Tax::Outcome, b"failure");
        put_redacted(fields, Tax::ErrorMessage, body);
        fields.put(Tax::Reason, login_reason(state, body));
        return "login_failed";
    }
    if let Some(rest) = body.strip_prefix(b"Login succeeded for user '") {
        put_user(rest, fields);
        fields.put(Tax::Outcome, b"success");
        let method: &[u8] = if memchr::memmem::find(rest, b"Windows authentication").is_some() { b"windows" } else { b"password" };
        fields.put(Tax::AuthMethod, method);
        return "login_succeeded";
    }
    if body.starts_with(b"Login failed") || body.starts_with(b"SSPI handshake failed") {
        fields.put(Tax::Outcome, b"failure");
        fields.put(Tax::Reason, b"bad_credentials");
        return "login_failed";
    }
    if let Some(name) = body.strip_prefix(b"Configuration option '").and_then(|rest| cut(rest, b"' changed from ")) {
        fields.put(Tax::Parameter, name.0);
        fields.put(Tax::ParameterValue, between(name.1, b" to ", b".").unwrap_or_default());
    }
    if let Some((_, event)) = WORDS.iter().find(|(words, _)| memchr::memmem::find(body, words).is_some()) {
        return event;
    }
    if fields.is_set(Tax::ErrorCode) {
        put_redacted(fields, Tax::ErrorMessage, body);
        return "error";
    }
    "other"
}

/// The name up to the last quote that the server's own words can follow.
fn put_user(rest: &[u8], fields: &mut LogFields) {
    let end = [&b"'. Reason: "[..], b"'. Connection made", b"'. [CLIENT: ", b"'."].iter().find_map(|mark| super::scan::rfind(rest, mark));
    let user = &rest[..end.unwrap_or(rest.len())];
    if memchr::memchr(b'\n', user).is_some() || memchr::memmem::find(user, b"[CLIENT: ").is_some() {
        fields.put(Tax::Forged, b"true");
    }
    fields.put(Tax::User, user);
}

fn login_reason(state: &[u8], body: &[u8]) -> &'static [u8] {
    let says = |words: &[u8]| memchr::memmem::find(body, words).is_some();
    match state {
        b"5" => b"unknown_user",
        b"7" => b"locked",
        b"8" | b"9" => b"bad_credentials",
        b"11" | b"12" => b"not_permitted",
        b"18" => b"expired",
        b"4" | b"16" | b"27" | b"38" | b"40" | b"46" => b"unknown_database",
        _ if says(b"Password did not match") => b"bad_credentials",
        _ if says(b"Could not find a login matching") => b"unknown_user",
        _ if says(b"The account is disabled") => b"locked",
        _ if says(b"locked out") => b"locked",
        _ if says(b"explicitly specified database") => b"unknown_database",
        _ => b"bad_credentials",
    }
}
