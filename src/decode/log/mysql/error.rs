//! The error log of MySQL 5.7 and 8, MariaDB and Aurora MySQL.
//!
//! In: `time thread [Level] [MY-code] [Subsystem] message`, the last two brackets from MySQL 8 on; MariaDB pads the hour with a
//! blank and names no zone. Out: one event an entry. Invariant: in `Access denied for user 'U'@'H'` U is the client's, so H
//! is read from the end, and a message that stops inside U is flagged.

use super::super::{
    LogEvent, LogFields, Sink, When,
    scan::{self, between, cut, cut_last},
    statement::put_redacted,
    tax::Tax,
};

/// How far a name with a newline may reach from its entry's start: its 128 characters and the server's words before it.
const REACH: usize = 240;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    body: u32,
    when: When,
    is_doubtful: bool,
}

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(in crate::decode::log) struct Scratch {
    entries: Vec<Entry>,
}

impl Scratch {
    pub(in crate::decode::log) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        self.split(text);
        for entry in &self.entries {
            let raw = &text[entry.start as usize..entry.end as usize];
            if raw.iter().all(u8::is_ascii_whitespace) {
                sink.skip(raw.len());
                continue;
            }
            fields.begin_event();
            let body = &text[(entry.body as usize).min(entry.end as usize)..entry.end as usize];
            let is_mysql = memchr::memchr(b'T', &raw[..raw.len().min(11)]).is_some();
            let product = if is_mysql { "mysql" } else { "mariadb" };
            fields.put(Tax::Engine, product.as_bytes());
            if entry.is_doubtful {
                fields.put(Tax::Event, b"log_forgery");
                fields.put(Tax::Forged, b"true");
                put_redacted(fields, Tax::Message, raw);
            } else {
                fill(body, fields);
            }
            sink.emit(fields, product, entry.start as usize, entry.end as usize, entry.when);
        }
    }

    fn split(&mut self, text: &[u8]) {
        self.entries.clear();
        let mut at = 0;
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            let end = (at + line.len()) as u32;
            match start(line) {
                Some((when, body)) => {
                    if self.swallow(text, at, end, &line[body..]) {
                        at = next;
                        continue;
                    }
                    self.entries.push(Entry { start: at as u32, end, body: (at + body) as u32, when, is_doubtful: false });
                    // The audit plugin sometimes writes no newline before its own time.
                    if let Some(glued) = glued(&line[body..]) {
                        let middle = at + body + glued;
                        self.entries.last_mut().expect("one was just pushed").end = middle as u32;
                        let (when, behind) = start(&text[middle..end as usize]).unwrap_or((when, 0));
                        self.entries.push(Entry { start: middle as u32, end, body: (middle + behind) as u32, when, is_doubtful: false });
                    }
                }
                None => self.push_rest(text, at, end, line),
            }
            at = next;
        }
    }

    /// A line with a time that comes while a name is open: whatever it says, a client may have said it. Whether it was taken.
    fn swallow(&mut self, text: &[u8], at: usize, end: u32, body: &[u8]) -> bool {
        let is_own = memchr::memmem::find(&body[..body.len().min(128)], DENIED).is_some();
        let ends = cut_last(body, b"'@'").is_some_and(|(_, behind)| is_login_end(behind));
        let Some(last) = self.entries.last_mut().filter(|last| at - last.start as usize <= REACH && !is_own) else { return false };
        if is_open(&text[last.start as usize..last.end as usize]) {
            (last.end, last.is_doubtful) = (end, !ends);
            return true;
        }
        if ends {
            // The end of a name that no server's word introduces.
            last.end = end;
            self.doubt_back(at);
            return true;
        }
        false
    }

    /// A line without a time: more of the entry before, or the rest of a name that held a newline.
    fn push_rest(&mut self, text: &[u8], at: usize, end: u32, line: &[u8]) {
        let ends = cut_last(line, b"'@'").is_some_and(|(_, behind)| is_login_end(behind));
        let Some(last) = self.entries.last_mut() else {
            self.entries.push(Entry { start: at as u32, end, body: at as u32, when: When::Unknown, is_doubtful: ends });
            return;
        };
        let was_open = is_open(&text[last.start as usize..last.end as usize]);
        last.end = end;
        if ends && was_open {
            last.is_doubtful = false;
        } else if ends {
            self.doubt_back(at);
        }
    }

    /// Doubts all that began within a name's reach before `at`.
    fn doubt_back(&mut self, at: usize) {
        for entry in self.entries.iter_mut().rev().take_while(|entry| at - entry.start as usize <= REACH) {
            entry.is_doubtful = true;
        }
    }
}

/// The server's words before a refused client's name.
const DENIED: &[u8] = b"Access denied for user '";

/// Whether an entry stops inside a refused client's name.
fn is_open(entry: &[u8]) -> bool {
    memchr::memmem::find(&entry[..entry.len().min(128)], DENIED)
        .is_some_and(|at| cut_last(&entry[at..], b"'@'").is_none_or(|(_, behind)| !is_login_end(behind)))
}

/// `H' (using password: YES)` or `H' to database 'D'`.
fn is_login_end(behind: &[u8]) -> bool {
    memchr::memmem::find(behind, b"' (using password: ").is_some() || memchr::memmem::find(behind, b"' to database '").is_some()
}

/// Where a second entry begins inside a line.
fn glued(body: &[u8]) -> Option<usize> {
    let mark = super::super::scan::rfind(body, b" server_audit: ")?;
    let at = mark.checked_sub(15)?;
    (at > 0 && scan::compact_date_time(&body[at..])?.len == 15).then_some(at)
}

/// Time at the start of a line, and where the rest begins.
fn start(line: &[u8]) -> Option<(When, usize)> {
    if let Some(stamp) = scan::date_time(line) {
        return match line.get(stamp.len) {
            Some(b'Z') => Some((When::At(stamp.ms), stamp.len + 2)),
            Some(b'+' | b'-') => {
                let zone = line[stamp.len..].iter().position(|byte| *byte == b' ')?;
                let east = scan::zone_ms(&line[stamp.len..stamp.len + zone]).unwrap_or_default();
                Some((When::At(stamp.ms - east), stamp.len + zone + 1))
            }
            Some(b' ') => Some((When::Zoneless(stamp.ms), stamp.len + 1)),
            _ => None,
        }
        .filter(|(_, body)| *body <= line.len());
    }
    let stamp = scan::compact_date_time(line)?;
    (line.get(stamp.len) == Some(&b' ')).then_some((When::Zoneless(stamp.ms), stamp.len + 1))
}

fn fill(body: &[u8], fields: &mut LogFields) {
    let mut rest = body;
    let thread = scan::digits(rest);
    if thread > 0 && rest.get(thread) == Some(&b' ') {
        fields.put(Tax::SessionPid, &rest[..thread]);
        rest = &rest[thread + 1..];
    }
    let mut severity: &[u8] = b"";
    for tax in [Tax::Severity, Tax::ErrorCode, Tax::Context] {
        let Some((word, behind)) = rest.strip_prefix(b"[").and_then(|inside| cut(inside, b"]")) else { break };
        if tax == Tax::ErrorCode && !word.starts_with(b"MY-") {
            break;
        }
        if tax == Tax::Severity {
            severity = word;
        }
        fields.put(tax, word);
        rest = behind.strip_prefix(b" ").unwrap_or(behind);
    }
    let event = judge(rest, fields).unwrap_or(if severity.eq_ignore_ascii_case(b"error") {
        put_redacted(fields, Tax::ErrorMessage, rest);
        "error"
    } else {
        "other"
    });
    fields.put(Tax::Event, event.as_bytes());
    put_redacted(fields, Tax::Message, rest);
}

/// Parts of messages and what they tell.
const WORDS: &[(&[u8], &str)] = &[
    (b"ready for connections", "startup"),
    (b"Normal shutdown", "shutdown"),
    (b"Shutdown complete", "shutdown"),
    (b"Received SHUTDOWN from user", "shutdown"),
    (b"got signal", "crash"),
    (b"Assertion failure", "crash"),
    (b"server_audit: logging", "audit_change"),
    (b"server_audit: STOPPED", "audit_change"),
    (b"server_audit: MariaDB Audit Plugin", "audit_change"),
    (b"Plugin server_audit", "audit_change"),
];

fn judge(rest: &[u8], fields: &mut LogFields) -> Option<&'static str> {
    if let Some(quoted) = rest.strip_prefix(b"Access denied for user '") {
        fields.put(Tax::Outcome, b"failure");
        denied(quoted, fields);
        return Some("login_failed");
    }
    if let Some(rest) = rest.strip_prefix(b"Aborted connection ") {
        return Some(aborted(rest, fields));
    }
    if let Some(rest) = rest.strip_prefix(b"Host '")
        && let Some((host, behind)) = cut(rest, b"' is ")
        && (behind.starts_with(b"not allowed") || behind.starts_with(b"blocked"))
    {
        fields.put(Tax::ClientAddress, host);
        fields.put(Tax::Reason, b"host_rejected");
        return Some("login_failed");
    }
    let head = &rest[..rest.len().min(512)];
    WORDS.iter().find(|(words, _)| memchr::memmem::find(head, words).is_some()).map(|(_, event)| *event)
}

/// `U'@'H' (using password: YES)` or `U'@'H' to database 'D'`.
pub(super) fn denied(quoted: &[u8], fields: &mut LogFields) {
    let Some((user, behind)) = cut_last(quoted, b"'@'").filter(|(_, behind)| is_login_end(behind)) else {
        // The server stopped at a newline inside the name.
        fields.put(Tax::User, quoted.split(|byte| *byte == b'\n').next().unwrap_or_default());
        fields.put(Tax::Reason, b"bad_credentials");
        fields.put(Tax::Forged, b"true");
        return;
    };
    if memchr::memmem::find(user, b"'@'").is_some() || memchr::memchr(b'\n', user).is_some() {
        fields.put(Tax::Forged, b"true");
    }
    fields.put(Tax::User, user);
    if let Some((host, database)) = cut(behind, b"' to database '") {
        fields.put(Tax::ClientAddress, host);
        match database.strip_suffix(b"'") {
            Some(database) => fields.put(Tax::Name, database),
            None => fields.put(Tax::Forged, b"true"),
        }
        fields.put(Tax::Reason, b"not_permitted");
    } else if let Some((host, password)) = cut(behind, b"' (using password: ") {
        fields.put(Tax::ClientAddress, host);
        fields.put(Tax::Reason, if password.starts_with(b"NO") { b"no_password" } else { b"bad_credentials" });
    }
}

/// `N to db: 'D' user: 'U' host: 'H' (why)`.
fn aborted(rest: &[u8], fields: &mut LogFields) -> &'static str {
    let why = cut_last(rest, b" (").map_or(&b""[..], |(_, why)| why);
    if let Some((_, host)) = cut_last(rest, b"' host: '") {
        fields.put(Tax::ClientAddress, cut(host, b"'").map_or(host, |(host, _)| host));
    }
    let user = between(rest, b"' user: '", b"' host: '").unwrap_or_default();
    if user != b"unauthenticated" {
        fields.put(Tax::User, user);
        return if why.starts_with(b"KILLED") { "killed" } else { "other" };
    }
    let reason: &[u8] = if why.starts_with(b"Too many connections") { b"too_many_connections" } else { b"aborted" };
    fields.put(Tax::Reason, reason);
    fields.put(Tax::Outcome, b"failure");
    "login_failed"
}
