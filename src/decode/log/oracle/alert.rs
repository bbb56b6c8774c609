//! Oracle's alert log.
//!
//! In: a line with the time, then lines of text. Out: one event a line of text. Invariant: a line counts as a statement only where
//! the server itself logs one (`ALTER SYSTEM`, `ALTER DATABASE`, …).

use super::date;
use crate::decode::log::{
    LogEvent, LogFields, Sink, When, scan,
    statement::{self, put_redacted},
    tax::Tax,
};

/// Beginnings of lines and what they tell.
const WORDS: &[(&[u8], &str)] = &[
    (b"Starting ORACLE instance", "startup"),
    (b"Shutting down ORACLE instance", "shutdown"),
    (b"Shutting down instance", "shutdown"),
    (b"Instance terminated by", "crash"),
    (b"Instance Critical Process", "crash"),
    (b"ORA-00600", "crash"),
    (b"ORA-07445", "crash"),
];

const STATEMENTS: [&[u8]; 6] =
    [b"ALTER SYSTEM ", b"ALTER DATABASE ", b"CREATE TABLESPACE ", b"DROP TABLESPACE ", b"ALTER TABLESPACE ", b"ALTER PLUGGABLE "];

pub(in crate::decode::log) fn decode<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    let mut when = When::Unknown;
    while at < text.len() {
        let (line, next) = scan::line(text, at);
        let start = at;
        at = next;
        if let Some(ms) = time(line) {
            when = When::At(ms);
            sink.skip(next - start);
            continue;
        }
        if line.trim_ascii().is_empty() {
            sink.skip(next - start);
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"oracle");
        let event = judge(fields, line);
        fields.put(Tax::Event, event.as_bytes());
        put_redacted(fields, Tax::Message, line);
        sink.emit(fields, "oracle", start, start + line.len(), when);
    }
}

/// A line that is nothing but a time: `2022-07-18T01:02:03.123456+00:00` or `Mon Jul 18 01:02:03 2022`.
fn time(line: &[u8]) -> Option<i64> {
    let line = line.trim_ascii_end();
    match scan::date_time(line) {
        Some(stamp) => scan::zone_ms(&line[stamp.len..]).map(|zone| stamp.ms - zone),
        None => date(line),
    }
}

fn judge(fields: &mut LogFields, line: &[u8]) -> &'static str {
    if STATEMENTS.iter().any(|start| line.starts_with(start)) {
        return statement::put(fields, line);
    }
    if let Some(rest) = line.strip_prefix(b"ORA-") {
        let code = &rest[..scan::digits(rest)];
        fields.put(Tax::ErrorCode, code);
        put_redacted(fields, Tax::ErrorMessage, line);
    }
    match WORDS.iter().find(|(words, _)| line.starts_with(words)) {
        Some((_, event)) => event,
        None if fields.is_set(Tax::ErrorCode) => "error",
        None => "other",
    }
}
