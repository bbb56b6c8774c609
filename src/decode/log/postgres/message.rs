//! What a message says: PostgreSQL's wording to the taxonomy.
//!
//! In: an entry and the details that hang on it. Out: fields. Invariant: the user, database, address and process are those of
//! the prefix, which the server wrote; text that a client may have written is only ever a value.

use super::{
    super::{
        fields::LogFields,
        scan::{between, cut, cut_last, word},
        statement::{self, put_redacted},
        tax::Tax,
    },
    NONE, pgaudit,
    prefix::{Range, Severity},
    split::{Entry, Standing},
};

/// Sets the fields of the message that begins with `entries[index]`.
pub(super) fn fill(text: &[u8], entries: &[Entry], index: usize, fields: &mut LogFields, scratch: &mut Vec<u8>) {
    let entry = &entries[index];
    prefix(text, entry, fields);
    if entry.severity.is_secondary() {
        fields.put(Tax::Event, b"detail");
        secondary(entry.severity, body(text, entry, scratch), fields);
    } else {
        let mut spare = std::mem::take(scratch);
        primary(entry.severity, body(text, entry, &mut spare), fields, scratch);
        *scratch = spare;
    }
    let mut next = entry.next;
    while next != NONE {
        let detail = &entries[next as usize];
        secondary(detail.severity, body(text, detail, scratch), fields);
        next = detail.next;
    }
}

/// Adds the message that a lone detail belongs to.
pub(super) fn belated(severity: Severity, body: &[u8], fields: &mut LogFields) {
    if matches!(severity, Severity::Error | Severity::Fatal) {
        put_redacted(fields, Tax::ErrorMessage, body);
    }
    put_redacted(fields, Tax::Message, body);
}

fn slice(text: &[u8], range: Range) -> &[u8] {
    &text[range.0 as usize..range.1 as usize]
}

fn prefix(text: &[u8], entry: &Entry, fields: &mut LogFields) {
    let known = |range| Some(slice(text, range)).filter(|name| *name != b"[unknown]").unwrap_or_default();
    fields.put(Tax::Severity, entry.severity.as_bytes());
    fields.put(Tax::User, known(entry.user));
    fields.put(Tax::Name, known(entry.database));
    match slice(text, entry.remote) {
        b"[local]" => fields.put(Tax::ClientAddress, b"local"),
        remote => {
            if let Some((host, port)) = cut_last(remote, b"(") {
                fields.put(Tax::ClientAddress, host);
                fields.put(Tax::ClientPort, port.strip_suffix(b")").unwrap_or(port));
            }
        }
    }
    fields.put(Tax::SessionPid, slice(text, entry.pid_text));
    fields.put(Tax::SessionId, slice(text, entry.session));
    fields.put(Tax::Application, known(entry.application));
    match slice(text, entry.state) {
        b"00000" => {}
        state => fields.put(Tax::ErrorCode, state),
    }
    if entry.standing == Standing::Forged {
        fields.put(Tax::Forged, b"true");
    }
}

/// The text behind the severity, with the TABs of continuation lines taken away.
fn body<'a>(text: &'a [u8], entry: &Entry, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let raw = text.get(entry.body as usize..entry.end as usize).unwrap_or_default();
    if memchr::memchr(b'\n', raw).is_none() {
        return raw;
    }
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        scratch.extend_from_slice(&rest[..=at]);
        rest = &rest[at + 1..];
        rest = rest.strip_prefix(b"\t").unwrap_or(rest);
    }
    scratch.extend_from_slice(rest);
    scratch
}

fn secondary(severity: Severity, body: &[u8], fields: &mut LogFields) {
    match severity {
        Severity::Detail => {
            if let Some(parameters) = body.strip_prefix(b"parameters: ").or_else(|| body.strip_prefix(b"Parameters: ")) {
                put_redacted(fields, Tax::Parameters, parameters);
            }
            if let Some(reason) = detail_reason(body) {
                fields.set(Tax::Reason, reason);
            }
            put_redacted(fields, Tax::Detail, body);
        }
        Severity::Hint => fields.put(Tax::Hint, body),
        Severity::Context => put_redacted(fields, Tax::Context, body),
        Severity::Statement if !fields.is_set(Tax::Statement) => {
            statement::put(fields, body);
        }
        _ => {}
    }
}

/// The reason that only the DETAIL of a failed login tells.
fn detail_reason(body: &[u8]) -> Option<&'static [u8]> {
    if body.starts_with(b"Role \"") && memchr::memmem::find(body, b"\" does not exist").is_some() {
        return Some(b"unknown_user");
    }
    if !body.starts_with(b"User \"") {
        return None;
    }
    let says = |words: &[u8]| memchr::memmem::find(body, words).is_some();
    if says(b"\" has an expired password") {
        Some(b"expired")
    } else if says(b"\" has no password assigned") {
        Some(b"no_password")
    } else {
        says(b"\" has an empty password").then_some(b"no_password")
    }
}

fn primary(severity: Severity, body: &[u8], fields: &mut LogFields, scratch: &mut Vec<u8>) {
    // The statement is part of the message: one search does for both.
    if !crate::redact::is_suspect(body) {
        fields.note_clean(body);
    }
    if let (Severity::Log, Some(line)) = (severity, body.strip_prefix(b"AUDIT: ")) {
        pgaudit::fill(line, fields, scratch);
    } else {
        let event = match severity {
            Severity::Fatal => fatal(body, fields),
            Severity::Panic => "crash",
            Severity::Error => error(body, fields),
            Severity::Log => log(body, fields),
            _ => "other",
        };
        fields.put(Tax::Event, event.as_bytes());
    }
    put_redacted(fields, Tax::Message, body);
    // The buffer behind `body` is used again for the details.
    fields.note_clean(b"");
}

fn error(body: &[u8], fields: &mut LogFields) -> &'static str {
    put_redacted(fields, Tax::ErrorMessage, body);
    fields.put(Tax::Outcome, b"failure");
    if [&b"permission denied"[..], b"must be superuser", b"must be owner", b"must be member", b"must have"]
        .iter()
        .any(|start| body.starts_with(start))
    {
        fields.put(Tax::Reason, b"permission_denied");
    }
    if body.starts_with(b"canceling statement due to user request") { "killed" } else { "error" }
}

/// Beginnings of FATAL messages, the event and the reason.
const FATALS: &[(&[u8], &str, &str)] = &[
    (b"no pg_hba.conf entry", "login_failed", "host_rejected"),
    (b"pg_hba.conf rejects", "login_failed", "host_rejected"),
    (b"sorry, too many clients already", "login_failed", "too_many_connections"),
    (b"remaining connection slots are reserved", "login_failed", "too_many_connections"),
    (b"too many connections for ", "login_failed", "too_many_connections"),
    (b"permission denied for database", "login_failed", "not_permitted"),
    (b"must be superuser", "login_failed", "not_permitted"),
    (b"the database system is ", "login_failed", "starting_up"),
    (b"canceling authentication due to timeout", "login_failed", "timeout"),
    (b"connection requires a valid client certificate", "login_failed", "tls"),
    (b"terminating connection due to administrator command", "killed", ""),
    (b"terminating connection due to conflict with recovery", "killed", ""),
    (b"terminating connection because of crash", "crash", ""),
    (b"unsupported frontend protocol", "garbage", ""),
    (b"no PostgreSQL user name specified", "garbage", ""),
    (b"invalid startup packet", "garbage", ""),
    (b"terminating ", "killed", ""),
];

fn fatal(body: &[u8], fields: &mut LogFields) -> &'static str {
    put_redacted(fields, Tax::ErrorMessage, body);
    fields.put(Tax::Outcome, b"failure");
    for (start, event, reason) in FATALS {
        if body.starts_with(start) {
            fields.put(Tax::Reason, reason.as_bytes());
            return event;
        }
    }
    let head = &body[..body.len().min(256)];
    let ends = |words: &[u8]| super::super::scan::rfind(body, words).is_some();
    let reason: &[u8] = if let Some((method, _)) = cut(head, b" authentication failed for user \"") {
        fields.put_with(Tax::AuthMethod, |arena| arena.extend(method.iter().map(u8::to_ascii_lowercase)));
        b"bad_credentials"
    } else if body.starts_with(b"role \"") && ends(b"\" does not exist") {
        b"unknown_user"
    } else if body.starts_with(b"role \"") && ends(b"\" is not permitted to log in") {
        b"not_permitted"
    } else if body.starts_with(b"database \"") && ends(b"\" does not exist") {
        b"unknown_database"
    } else if body.starts_with(b"database \"") && ends(b"\" is not currently accepting connections") {
        b"not_permitted"
    } else {
        return "error";
    };
    fields.put(Tax::Reason, reason);
    "login_failed"
}

fn log(body: &[u8], fields: &mut LogFields) -> &'static str {
    // One look at the first byte spares most messages most comparisons.
    match body.first() {
        Some(b'c') => connection(body, fields),
        Some(b'd') => ending_or_duration(body, fields),
        Some(b's') if body.starts_with(b"statement: ") => statement::put(fields, &body[11..]),
        Some(b'e') if body.starts_with(b"execute ") => executed(&body[8..], fields),
        Some(b'r') if body.starts_with(b"replication connection authorized: ") => authorized(&body[35..], fields),
        Some(b'p') if body.starts_with(b"parameter \"") => parameter(&body[11..], fields),
        _ => server(body, fields),
    }
}

fn connection(body: &[u8], fields: &mut LogFields) -> &'static str {
    if let Some(rest) = body.strip_prefix(b"connection authorized: ") {
        authorized(rest, fields)
    } else if let Some(rest) = body.strip_prefix(b"connection authenticated: ") {
        let quoted = rest.strip_prefix(b"identity=\"").or_else(|| rest.strip_prefix(b"user=\"")).unwrap_or_default();
        if let Some((identity, behind)) = cut_last(quoted, b"\" method=") {
            fields.put(Tax::AuthIdentity, identity);
            fields.put(Tax::AuthMethod, word(behind));
        }
        "authenticated"
    } else if body.starts_with(b"connection received: ") {
        "connection"
    } else if body.starts_with(b"could not accept SSL connection") {
        fields.put(Tax::Reason, b"tls");
        "garbage"
    } else {
        "other"
    }
}

/// `user=U database=D [application_name=A] [SSL enabled (protocol=…, cipher=…, bits=…)]`: U, D and A are the client's words,
/// so they are taken from the prefix, and encryption is read from the end.
fn authorized(rest: &[u8], fields: &mut LogFields) -> &'static str {
    let mut head = rest;
    if let Some((before, tls)) = cut_last(rest, b" SSL enabled (")
        && tls.ends_with(b")")
    {
        fields.put(Tax::Tls, b"true");
        fields.put(Tax::TlsVersion, between(tls, b"protocol=", b",").unwrap_or_default());
        fields.put(Tax::TlsCipher, between(tls, b"cipher=", b",").unwrap_or_default());
        head = before;
    } else {
        fields.put(Tax::Tls, b"false");
    }
    if let Some((_, application)) = cut(head, b" application_name=") {
        if imitates(application) {
            fields.set(Tax::Forged, b"true");
        }
        fields.set(Tax::Application, application);
    }
    fields.put(Tax::Outcome, b"success");
    "login_succeeded"
}

/// Whether a client's application name holds what only the server writes.
fn imitates(application: &[u8]) -> bool {
    [&b"LOG:  "[..], b"FATAL:  ", b"ERROR:  ", b" SSL enabled ("].iter().any(|mark| memchr::memmem::find(application, mark).is_some())
}

fn ending_or_duration(body: &[u8], fields: &mut LogFields) -> &'static str {
    if let Some(rest) = body.strip_prefix(b"disconnection: session time: ") {
        if let Some(ms) = span_ms(word(rest)) {
            fields.put_number(Tax::Duration, ms);
        }
        return "logout";
    }
    if let Some(rest) = body.strip_prefix(b"duration: ") {
        fields.put(Tax::Duration, word(rest));
        let Some((_, behind)) = cut(rest, b" ms") else { return "duration" };
        let behind = behind.trim_ascii_start();
        if let Some(text) = behind.strip_prefix(b"statement: ") {
            return statement::put(fields, text);
        }
        for step in [&b"execute "[..], b"parse ", b"bind "] {
            if let Some(rest) = behind.strip_prefix(step) {
                let event = executed(rest, fields);
                return if step == b"execute " { event } else { "duration" };
            }
        }
        return "duration";
    }
    server(body, fields)
}

/// `<name>: SQL`.
fn executed(rest: &[u8], fields: &mut LogFields) -> &'static str {
    match cut(rest, b": ") {
        Some((_, text)) => statement::put(fields, text),
        None => "query",
    }
}

/// `H:MM:SS.mmm` to milliseconds.
fn span_ms(time: &[u8]) -> Option<u64> {
    use super::super::scan::number;
    let (hours, rest) = cut(time, b":")?;
    let (minutes, rest) = cut(rest, b":")?;
    let (seconds, ms) = cut(rest, b".").unwrap_or((rest, b"0"));
    let hours = number(hours).filter(|hours| *hours < 1_000_000)?;
    Some(((hours * 60 + number(minutes)?.min(59)) * 60 + number(seconds)?.min(60)) * 1000 + number(ms)?.min(999))
}

/// `name" changed to "value"`.
fn parameter(rest: &[u8], fields: &mut LogFields) -> &'static str {
    let Some((name, behind)) = cut(rest, b"\"") else { return "other" };
    fields.put(Tax::Parameter, name);
    if let Some(value) = behind.strip_prefix(b" changed to \"") {
        fields.put(Tax::ParameterValue, value.strip_suffix(b"\"").unwrap_or(value));
    }
    if statement::is_audit_parameter(name) { "audit_change" } else { "config_change" }
}

/// Beginnings of what the server says about itself.
const SERVER: &[(&[u8], &str)] = &[
    (b"database system is ready to accept", "startup"),
    (b"database system is shut down", "shutdown"),
    (b"database system was not properly shut down", "crash"),
    (b"database system was interrupted", "crash"),
    (b"received fast shutdown request", "shutdown"),
    (b"received smart shutdown request", "shutdown"),
    (b"received immediate shutdown request", "shutdown"),
    (b"received SIGHUP", "config_change"),
    (b"server process (PID", "crash"),
    (b"terminating any other active server processes", "crash"),
    (b"invalid length of startup packet", "garbage"),
    (b"incomplete startup packet", "garbage"),
];

fn server(body: &[u8], fields: &mut LogFields) -> &'static str {
    let event = SERVER.iter().find(|(start, _)| body.starts_with(start)).map_or("other", |(_, event)| event);
    if event == "garbage" {
        fields.put(Tax::Outcome, b"failure");
    }
    event
}
