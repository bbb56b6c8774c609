//! Neptune's audit log.
//!
//! In: `unix microseconds, client, server, connection type, caller's ARN, auth context, HTTP headers, query`, where headers and
//! query hold commas of their own. Out: one event a line. Invariant: only the first five columns are split at commas; all
//! that follows is text that the caller chose.

use super::{
    LogEvent, LogFields, Sink, When, json,
    scan::{self, cut},
    statement::put_redacted,
    tax::Tax,
};

pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let (_, mut next) = scan::line(text, at);
        // A query may span lines; the next entry begins with its time.
        while next < text.len() && begins(&text[next..]).is_none() {
            next = scan::line(text, next).1;
        }
        at = next;
        let raw = text[start..next].trim_ascii_end();
        if raw.is_empty() {
            sink.skip(next - start);
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"neptune");
        let when = fill(raw, fields);
        sink.emit(fields, "neptune", start, start + raw.len(), when);
    }
}

/// The time in microseconds, where the line begins with one.
fn begins(line: &[u8]) -> Option<u64> {
    let digits = scan::digits(&line[..line.len().min(20)]);
    let is_start = matches!(digits, 13 | 16) && matches!(line.get(digits), Some(b',' | b' '));
    let time = scan::number(&line[..digits]).filter(|_| is_start)?;
    Some(if digits == 13 { time * 1000 } else { time })
}

fn fill(raw: &[u8], fields: &mut LogFields) -> When {
    let Some(time) = begins(raw) else {
        fields.put(Tax::Event, b"other");
        put_redacted(fields, Tax::Message, raw);
        return When::Unknown;
    };
    let mut rest = cut(raw, b",").map_or(&b""[..], |(_, rest)| rest);
    let mut column = || {
        let (column, behind) = cut(rest, b",").unwrap_or((rest, b""));
        rest = behind;
        column.trim_ascii()
    };
    let client = column();
    let _server = column();
    let connection = column();
    let caller = column();
    json::put_endpoint(fields, client.strip_prefix(b"/").unwrap_or(client));
    fields.put(Tax::AuthIdentity, caller);
    fields.put(Tax::AuthMethod, if caller.is_empty() { b"" } else { b"iam" });
    fields.put(Tax::User, caller.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
    fields.put(Tax::Command, connection);
    let query = query(rest);
    fields.put(Tax::Event, b"query");
    fields.put(Tax::StatementClass, if writes(query) { b"WRITE" } else { b"READ" });
    put_redacted(fields, Tax::Statement, query);
    if let Some(agent) = scan::between(rest, b"\"user-agent\":\"", b"\"").or_else(|| scan::between(rest, b"User-Agent: ", b",")) {
        fields.put(Tax::Application, agent);
    }
    When::At((time / 1000) as i64)
}

/// What stands behind the header columns: they end with `}`, `)` or `]`, or are blank.
fn query(rest: &[u8]) -> &[u8] {
    let mut query = rest.trim_ascii_start();
    for _ in 0..2 {
        query = match query.first() {
            Some(b',') => query[1..].trim_ascii_start(),
            Some(b'{') => match json_end(query) {
                Some(end) => query[end..].trim_ascii_start().strip_prefix(b",").unwrap_or(b"").trim_ascii_start(),
                None => return query,
            },
            _ => return query,
        };
    }
    query
}

fn json_end(text: &[u8]) -> Option<usize> {
    crate::event::json::skip(text, 0).ok()
}

/// Whether a Gremlin, openCypher or SPARQL text changes the graph.
fn writes(query: &[u8]) -> bool {
    const WORDS: &[&[u8]] = &[
        b"addv(",
        b"adde(",
        b".drop(",
        b".property(",
        b"mergev(",
        b"mergee(",
        b"create ",
        b"merge ",
        b"delete ",
        b" set ",
        b"remove ",
        b"insert ",
        b"load ",
        b"clear ",
        b"drop ",
    ];
    let head = &query[..query.len().min(4096)];
    WORDS.iter().any(|word| head.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word)))
}
