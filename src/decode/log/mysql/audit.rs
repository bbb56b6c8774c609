//! server_audit lines, as MariaDB's plugin writes them on RDS and Aurora in its own time form.
//!
//! In: `time,serverhost,user,host,connid,queryid,OPERATION,database,object,retcode[,type]`, where only a QUERY's object is
//! quoted. Out: one event a line. Invariant: user, database and table may hold commas and newlines, so a line is read from
//! `,host,digits,digits,OPERATION,` to its very end, in every way in which that is possible.

mod reading;

use reading::{Operation, Range, Reading, imitates, readings};

use super::super::{LogEvent, LogFields, Sink, When, scan, statement, tax::Tax};

/// Longest user name: 128 characters, in bytes (sql_acl.cc cuts it there).
const MOST_USER: usize = 128;
/// Failed logins whose DISCONNECT is known not to end a session.
const MOST_FAILED: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Plain,
    Forged,
    Doubtful,
    Loose,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    user: u32,
    when: When,
    is_aurora: bool,
    reading: Option<Reading>,
    standing: Standing,
    /// The line stopped inside a name whose end hasn't come yet.
    is_open: bool,
}

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(in crate::decode::log) struct Scratch {
    entries: Vec<Entry>,
    plain: Vec<u8>,
    failed: Vec<u64>,
}

impl Scratch {
    pub(in crate::decode::log) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        self.split(text);
        self.failed.clear();
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            let raw = &text[entry.start as usize..entry.end as usize];
            if raw.iter().all(u8::is_ascii_whitespace) {
                sink.skip(raw.len());
                continue;
            }
            fields.begin_event();
            let product = match entry.reading {
                Some(reading) if matches!(entry.standing, Standing::Plain | Standing::Forged) => self.fill(text, &entry, &reading, fields),
                _ => {
                    let event: &[u8] = if entry.standing == Standing::Doubtful { b"log_forgery" } else { b"other" };
                    fields.put(Tax::Event, event);
                    statement::put_redacted(fields, Tax::Message, raw);
                    "mysql"
                }
            };
            if matches!(entry.standing, Standing::Forged | Standing::Doubtful) {
                fields.put(Tax::Forged, b"true");
            }
            sink.emit(fields, product, entry.start as usize, entry.end as usize, entry.when);
        }
    }

    fn split(&mut self, text: &[u8]) {
        self.entries.clear();
        let mut at = 0;
        while at < text.len() {
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end);
            let trimmed = if end > at && text[end - 1] == b'\r' { end - 1 } else { end };
            match start(text, at, trimmed) {
                Some(head) => self.push_line(text, at, trimmed, head),
                None => self.push_tail(text, at, trimmed),
            }
            at = end + 1;
        }
        self.doubt_twins(text);
    }

    /// A name can hold a whole line and the beginning of a second one, which the server's own words then complete. But the server
    /// writes a refused client's name twice: with the failed login and with its end. So lines that stand before both are no lines.
    fn doubt_twins(&mut self, text: &[u8]) {
        self.failed.clear();
        let mut places = [0usize; MOST_FAILED];
        for index in 0..self.entries.len() {
            let Some(reading) = self.entries[index].reading else { continue };
            let id = scan::number(&text[reading.connection.0 as usize..reading.connection.1 as usize]).unwrap_or_default();
            match reading.operation {
                Operation::FailedConnect => {
                    if self.failed.len() == MOST_FAILED {
                        self.failed.remove(0);
                        places.rotate_left(1);
                    }
                    places[self.failed.len()] = index;
                    self.failed.push(id);
                }
                Operation::Disconnect => {
                    let Some(place) = self.failed.iter().rposition(|failed| *failed == id) else { continue };
                    self.doubt_before(text, places[place], index);
                }
                _ => {}
            }
        }
    }

    /// Doubts the lines before both entries as long as they are the same.
    fn doubt_before(&mut self, text: &[u8], failed: usize, ended: usize) {
        for back in 1.. {
            let (Some(one), Some(two)) = (failed.checked_sub(back), ended.checked_sub(back).filter(|two| *two > failed)) else { break };
            let line = |entry: &Entry| &text[entry.user as usize..entry.end as usize];
            let (first, second) = (self.entries[one], self.entries[two]);
            if line(&first) != line(&second) || !within(text, &first, self.entries[failed].user as usize) {
                break;
            }
            for index in [one, two] {
                self.entries[index].standing = Standing::Doubtful;
            }
            for index in [failed, ended] {
                self.entries[index].standing = Standing::Forged;
            }
        }
    }

    /// A line that begins as the server begins one.
    fn push_line(&mut self, text: &[u8], at: usize, end: usize, (when, is_aurora, user): (When, bool, usize)) {
        let after_broken = self.entries.last().is_some_and(|last| last.is_open && within(text, last, user));
        let (reading, standing) = match readings(text, user, end) {
            (None, _) => (None, Standing::Doubtful),
            (Some(reading), several) => {
                let is_forged = several || imitates(&text[user..reading.user_end as usize]);
                (Some(reading), if is_forged { Standing::Forged } else { Standing::Plain })
            }
        };
        if after_broken {
            // The line before stopped inside a name. If this one ends a session's attempt, the name went on into it.
            let last = self.entries.last_mut().expect("a line was broken just before");
            last.end = end as u32;
            last.is_open = !reading.is_some_and(|reading| reading.operation.is_session());
            if let Some(reading) =
                reading.filter(|reading| reading.operation.is_session() && memchr::memchr(b',', &text[user..reading.user_end as usize]).is_some())
            {
                (last.reading, last.standing) = (Some(reading), Standing::Forged);
            }
            return;
        }
        self.entries.push(Entry {
            start: at as u32,
            end: end as u32,
            user: user as u32,
            when,
            is_aurora,
            reading,
            standing,
            is_open: reading.is_none(),
        });
    }

    /// A line that begins otherwise: the rest of a name with a newline in it.
    fn push_tail(&mut self, text: &[u8], at: usize, end: usize) {
        let reading = readings(text, at, end).0;
        let Some(reading) = reading.filter(|reading| reading.operation.is_session()) else {
            // Only the lines of a session's beginning and end hold a name that isn't an account's.
            match self.entries.last_mut() {
                Some(last) => {
                    last.end = end as u32;
                    last.standing = if reading.is_some() { Standing::Doubtful } else { last.standing };
                }
                None => self.entries.push(loose(at, end, if reading.is_some() { Standing::Doubtful } else { Standing::Loose })),
            }
            return;
        };
        // Whatever began within a name's length before may have been written by the client.
        let anchor = reading.user_end as usize;
        let older = self.entries.iter().rev().skip(1).take_while(|entry| entry.standing != Standing::Forged && within(text, entry, anchor)).count();
        let spoilt = if self.entries.last().is_some_and(|last| within(text, last, anchor)) { 1 + older } else { 0 };
        if spoilt == 0 {
            self.entries.push(loose(at, end, Standing::Doubtful));
            return;
        }
        let first = self.entries.len() - spoilt;
        for entry in &mut self.entries[first..] {
            entry.standing = Standing::Doubtful;
        }
        // The name began in the earliest line that is broken, else in the last one.
        let owner = self.entries[first..].iter().position(|entry| entry.reading.is_none()).map_or(self.entries.len() - 1, |index| first + index);
        self.entries.truncate(owner + 1);
        let owner = &mut self.entries[owner];
        (owner.end, owner.reading, owner.standing, owner.is_open) = (end as u32, Some(reading), Standing::Forged, false);
    }

    /// Sets the event's fields; returns the product.
    fn fill(&mut self, text: &[u8], entry: &Entry, reading: &Reading, fields: &mut LogFields) -> &'static str {
        let slice = |range: Range| &text[range.0 as usize..range.1 as usize];
        let kind = slice(reading.kind);
        let (product, engine) = match (entry.is_aurora, kind.first()) {
            (true, _) => ("mysql", &b"aurora-mysql"[..]),
            (false, Some(b'0'..=b'9')) => ("mysql", &b"mysql"[..]),
            _ => ("mariadb", &b"mariadb"[..]),
        };
        fields.put(Tax::Engine, engine);
        fields.put(Tax::User, slice((entry.user, reading.user_end)));
        fields.put(Tax::ClientAddress, slice(reading.host));
        fields.put(Tax::SessionPid, slice(reading.connection));
        fields.put(Tax::Name, slice(reading.database));
        if kind.starts_with(b"TLS") || kind == b"4" {
            fields.put(Tax::Tls, b"true");
            fields.put(Tax::TlsVersion, if kind == b"4" { b"" } else { kind });
        } else if matches!(kind, b"1") {
            fields.put(Tax::Tls, b"false");
        }
        match reading.operation {
            Operation::Query => {
                fields.put(Tax::QueryId, slice(reading.query));
                self.fill_query(slice(reading.object), slice(reading.code), fields);
            }
            Operation::Table => {
                fields.put(Tax::QueryId, slice(reading.query));
                fields.put(Tax::Event, b"table");
                fields.put(Tax::Command, slice(reading.word));
                fields.put(Tax::ObjectType, b"TABLE");
                fields.put(Tax::ObjectName, slice(reading.object));
                let class: &[u8] = match slice(reading.word) {
                    b"READ" => b"READ",
                    b"WRITE" => b"WRITE",
                    _ => b"DDL",
                };
                fields.put(Tax::StatementClass, class);
            }
            operation => self.fill_session(operation, slice(reading.connection), slice(reading.code), fields),
        }
        product
    }

    fn fill_query(&mut self, object: &[u8], code: &[u8], fields: &mut LogFields) {
        let sql = if memchr::memchr(b'\\', object).is_some() {
            self.plain.clear();
            unescape(object, &mut self.plain);
            &self.plain[..]
        } else {
            object
        };
        let event = statement::put(fields, sql);
        let failed = super::put_error(fields, code);
        fields.put(Tax::Event, if failed { b"error" } else { event.as_bytes() });
    }

    fn fill_session(&mut self, operation: Operation, connection: &[u8], code: &[u8], fields: &mut LogFields) {
        let number = scan::number(code).unwrap_or_default();
        let id = scan::number(connection).unwrap_or_default();
        let event = match operation {
            Operation::FailedConnect => "login_failed",
            Operation::Disconnect if number == 1040 => "login_failed",
            Operation::Disconnect if self.failed.contains(&id) => "other",
            Operation::Disconnect => "logout",
            _ if number == 0 => "login_succeeded",
            _ => "login_failed",
        };
        if event == "login_failed" {
            if self.failed.len() == MOST_FAILED {
                self.failed.remove(0);
            }
            self.failed.push(id);
            fields.put(Tax::Outcome, b"failure");
            fields.put(Tax::ErrorCode, code);
            fields.put(Tax::Reason, super::login_reason(number).as_bytes());
        } else if event == "login_succeeded" {
            fields.put(Tax::Outcome, b"success");
        }
        fields.put(Tax::Event, event.as_bytes());
    }
}

/// Whether a name that began with `entry` may still go on at `at`.
fn within(text: &[u8], entry: &Entry, at: usize) -> bool {
    let from = entry.user as usize;
    at.saturating_sub(from) <= 4 * MOST_USER && text[from..at.max(from)].iter().filter(|byte| (**byte as i8) >= -0x40).count() <= MOST_USER
}

fn loose(at: usize, end: usize, standing: Standing) -> Entry {
    Entry { start: at as u32, end: end as u32, user: at as u32, when: When::Unknown, is_aurora: false, reading: None, standing, is_open: false }
}

/// Time and server host at the start of a line; where the user begins.
fn start(text: &[u8], at: usize, end: usize) -> Option<(When, bool, usize)> {
    let line = &text[at..end];
    let (when, is_aurora, len) = if line.get(8) == Some(&b' ') {
        let stamp = scan::compact_date_time(line)?;
        (When::Zoneless(stamp.ms), false, stamp.len)
    } else {
        let digits = scan::digits(&line[..line.len().min(20)]);
        if digits != 16 {
            return None;
        }
        (When::At((scan::number(&line[..16])? / 1000) as i64), true, 16)
    };
    let rest = line.get(len..)?.strip_prefix(b",")?;
    let host = memchr::memchr(b',', &rest[..rest.len().min(256)])?;
    Some((when, is_aurora, at + len + 1 + host + 1))
}

/// Undoes the plugin's escapes.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(byte) => out.push(*byte),
            None => {}
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}
