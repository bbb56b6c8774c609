//! One line of the audit log, in every way in which it can be read.
//!
//! In: text from the user's first byte to the line's end. Out: the reading that the server can have meant, and whether there were more.
//! Invariant: a reading takes the line to its very end.

use super::{super::super::scan, MOST_USER};

/// From the user's first byte to the operation: user, host, two ids.
const REACH: usize = 4 * MOST_USER + 256 + 44;

pub(super) type Range = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
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
    pub fn is_session(self) -> bool {
        !matches!(self, Operation::Query | Operation::Table)
    }
}

/// One reading of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Behind the user's last byte.
    pub user_end: u32,
    pub host: Range,
    pub connection: Range,
    pub query: Range,
    pub operation: Operation,
    pub word: Range,
    pub database: Range,
    pub object: Range,
    pub code: Range,
    /// RDS for MySQL's connection type, or MariaDB's TLS version.
    pub kind: Range,
    /// The line stops inside a quoted statement.
    pub is_cut: bool,
}

/// The reading of `text[from..end]` that the server can have meant, and whether there was more than one.
pub(super) fn readings(text: &[u8], from: usize, end: usize) -> (Option<Reading>, bool) {
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
pub(super) fn imitates(name: &[u8]) -> bool {
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
