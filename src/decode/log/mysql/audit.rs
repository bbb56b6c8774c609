//! server_audit lines, as MariaDB's plugin writes them on RDS and Aurora in its own time form.
//!
//! In: `time,serverhost,user,host,connid,queryid,OPERATION,database,object,retcode[,type]`, where only a QUERY's object is
//! quoted. Out: one event a line. Invariant: user, database and table may hold commas and newlines, so a line is read from
//! `,host,digits,digits,OPERATION,` to its very end, in every way in which that is possible.

use super::super::{LogEvent, LogFields, Sink, When, scan, statement, tax::Tax};

/// Longest user name: 128 characters, in bytes (sql_acl.cc cuts it there).
const MOST_USER: usize = 128;
/// From the user's first byte to the operation: user, host, two ids.
const REACH: usize = 4 * MOST_USER + 256 + 44;
/// Failed logins whose DISCONNECT is known not to end a session.
const MOST_FAILED: usize = 16;

type Range = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Connect,
    FailedConnect,
    Disconnect,
    ChangeUser,
    Query,
    Table,
}

const OPERATIONS: &[(&[u8], Operation)] = &[
    (b"QUERY", Operation::Query),
    (b"CONNECT", Operation::Connect),
    (b"DISCONNECT", Operation::Disconnect),
    (b"READ", Operation::Table),
    (b"WRITE", Operation::Table),
    (b"FAILED_CONNECT", Operation::FailedConnect),
    (b"CREATE", Operation::Table),
    (b"ALTER", Operation::Table),
    (b"DROP", Operation::Table),
    (b"RENAME", Operation::Table),
    (b"CHANGEUSER", Operation::ChangeUser),
    (b"PROXY_CONNECT", Operation::Connect),
];

impl Operation {
    fn is_session(self) -> bool {
        !matches!(self, Operation::Query | Operation::Table)
    }
}

/// One reading of a line.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Behind the user's last byte.
    user_end: u32,
    host: Range,
    connection: Range,
    query: Range,
    operation: Operation,
    word: Range,
    database: Range,
    object: Range,
    code: Range,
    /// RDS for MySQL's connection type, or MariaDB's TLS version.
    kind: Range,
    /// The line stops inside a quoted statement.
    is_cut: bool,
}

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

/// The reading of `text[from..end]` that the server can have meant, and whether there was more than one.
fn readings(text: &[u8], from: usize, end: usize) -> (Option<Reading>, bool) {
    let (mut first, mut last, mut count): (Option<Reading>, Option<Reading>, usize) = (None, None, 0);
    let mut cut = None;
    let mut at = from;
    while let Some(comma) = memchr::memchr(b',', &text[at..end]).map(|offset| at + offset) {
        at = comma + 1;
        if comma > from + REACH {
            break;
        }
        let Some(reading) = reading(text, from, comma, end) else { continue };
        if reading.is_cut {
            cut = cut.or(Some(reading));
            continue;
        }
        count += 1;
        first = first.or(Some(reading));
        last = Some(reading);
        if reading.operation == Operation::Query {
            // Within a whole quoted statement each quote is escaped, so nothing in it reads to the line's end.
            break;
        }
    }
    match (first, last) {
        (Some(first), Some(last)) => (Some(if last.operation.is_session() { last } else { first }), count > 1),
        _ => (cut, false),
    }
}

/// Whether a name holds what only the server writes: a newline, or ids and an operation.
fn imitates(name: &[u8]) -> bool {
    memchr::memchr(b'\n', name).is_some() || memchr::memchr_iter(b',', name).any(|comma| anchor(name, 0, comma, name.len()).is_some())
}

/// Reads `,OPERATION,…` at `comma` to the line's end, and host and ids before it.
fn reading(text: &[u8], from: usize, comma: usize, end: usize) -> Option<Reading> {
    let mut reading = anchor(text, from, comma, end)?;
    let rest = reading.word.1 as usize + 1;
    let is_read = match reading.operation {
        Operation::Query => query_rest(text, rest, end, &mut reading),
        Operation::Table => table_rest(text, rest, end, &mut reading),
        _ => session_rest(text, rest, end, &mut reading),
    };
    is_read.then_some(reading)
}

/// `,host,id,id,OPERATION,` whose last but one comma is at `comma`.
fn anchor(text: &[u8], from: usize, comma: usize, end: usize) -> Option<Reading> {
    let behind = &text[comma + 1..end];
    if !behind.first()?.is_ascii_uppercase() {
        return None;
    }
    let word_len = behind.iter().take(15).position(|byte| *byte == b',')?;
    let (_, operation) = OPERATIONS.iter().find(|(word, _)| *word == &behind[..word_len])?;
    let number_before = |at: usize| {
        let digits = text[from..at].iter().rev().take(21).take_while(|byte| byte.is_ascii_digit()).count();
        let start = at - digits;
        (digits > 0 && digits <= 20 && start > from && text[start - 1] == b',').then_some(start)
    };
    let query = number_before(comma)?;
    let connection = number_before(query - 1)?;
    // Behind a newline the host's comma is the line's first byte.
    let host = memchr::memrchr(b',', &text[from..connection - 1])? + from + 1;
    let range = |start: usize, end: usize| (start as u32, end as u32);
    Some(Reading {
        user_end: host as u32 - 1,
        host: range(host, connection - 1),
        connection: range(connection, query - 1),
        query: range(query, comma),
        operation: *operation,
        word: range(comma + 1, comma + 1 + word_len),
        database: (0, 0),
        object: (0, 0),
        code: (0, 0),
        kind: (0, 0),
        is_cut: false,
    })
}

/// `database,'statement',code[,type]`.
fn query_rest(text: &[u8], rest: usize, end: usize, reading: &mut Reading) -> bool {
    let Some(open) = scan::find(&text[rest..end], b",'").map(|at| rest + at) else { return false };
    let start = open + 2;
    let mut at = start;
    let close = loop {
        match memchr::memchr2(b'\'', b'\\', &text[at..end]) {
            Some(offset) if text[at + offset] == b'\\' => at = (at + offset + 2).min(end),
            Some(offset) => break Some(at + offset),
            None => break None,
        }
    };
    reading.database = (rest as u32, open as u32);
    let Some(close) = close else {
        (reading.object, reading.is_cut) = ((start as u32, end as u32), true);
        return true;
    };
    reading.object = (start as u32, close as u32);
    let Some(behind) = text[close + 1..end].strip_prefix(b",") else { return false };
    let digits = scan::digits(behind);
    let code = close + 2;
    reading.code = (code as u32, (code + digits) as u32);
    trailer(text, code + digits, end, reading)
}

/// `database,table,` and no code.
fn table_rest(text: &[u8], rest: usize, end: usize, reading: &mut Reading) -> bool {
    let line = &text[rest..end];
    let (body, kind) = match line.strip_suffix(b",") {
        Some(body) => (body, 0),
        None => match line {
            [body @ .., b',', b',', b'0'..=b'9'] => (body, 1),
            _ => return false,
        },
    };
    reading.kind = ((end - kind) as u32, end as u32);
    let Some(comma) = memchr::memchr(b',', body) else { return false };
    reading.database = (rest as u32, (rest + comma) as u32);
    reading.object = ((rest + comma + 1) as u32, (rest + body.len()) as u32);
    true
}

/// `database,,code[,type]`.
fn session_rest(text: &[u8], rest: usize, end: usize, reading: &mut Reading) -> bool {
    let Some(marks) = scan::rfind(&text[rest..end], b",,").map(|at| rest + at) else { return false };
    let code = marks + 2;
    let digits = scan::digits(&text[code..end]);
    reading.database = (rest as u32, marks as u32);
    reading.code = (code as u32, (code + digits) as u32);
    digits > 0 && trailer(text, code + digits, end, reading)
}

/// Nothing more, or one column: a connection type's digit, a TLS version, or empty.
fn trailer(text: &[u8], at: usize, end: usize, reading: &mut Reading) -> bool {
    let rest = &text[at..end];
    let Some(kind) = rest.strip_prefix(b",") else { return rest.is_empty() };
    reading.kind = ((at + 1) as u32, end as u32);
    kind.len() <= 8 && (kind.is_empty() || kind.len() == 1 && kind[0].is_ascii_digit() || kind.starts_with(b"TLSv"))
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
