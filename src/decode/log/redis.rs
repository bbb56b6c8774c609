//! ElastiCache's and MemoryDB's slow and engine logs, as JSON or text, and the engine's own lines.
//!
//! In: `{"CacheClusterId":…,"Command":"GET ... (1 more arguments)",…}` or the same values joined by commas; engine log lines as
//! `pid:role time level message`. Out: one event a line. Invariant: arguments are cut by the service, only the command's name is sure;
//! refused logins are in neither log.

use super::{
    LogEvent, LogFields, Sink, When, json,
    scan::{self, cut, cut_last, word},
    statement::put_redacted,
    tax::Tax,
};

pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(fields: &mut LogFields, sink: &mut Sink<'_, F>, slow: bool) {
    let text = sink.batch.text;
    let mut at = 0;
    while at < text.len() {
        let (line, next) = scan::line(text, at);
        let start = at;
        at = next;
        if line.trim_ascii().is_empty() {
            sink.skip(line.len());
            continue;
        }
        fields.begin_event();
        fields.put(Tax::Engine, b"redis");
        let when = match (slow, line.first()) {
            (true, Some(b'{')) => slow_json(line, fields),
            (true, _) => slow_text(line, fields),
            (false, Some(b'{')) => engine_json(line, fields),
            (false, _) => engine_text(line, fields),
        };
        sink.emit(fields, "redis", start, start + line.len(), when);
    }
}

fn seconds(raw: &[u8]) -> When {
    scan::number(raw).filter(|time| *time < 1 << 40).map_or(When::Unknown, |time| When::At(time as i64 * 1000))
}

fn slow_json(line: &[u8], fields: &mut LogFields) -> When {
    json::put(fields, Tax::Instance, json::member(line, "CacheClusterId").or_else(|| json::member(line, "ClusterId")));
    json::put(fields, Tax::QueryId, json::member(line, "Id"));
    json::put(fields, Tax::Application, json::member(line, "ClientName"));
    if let Some(client) = json::member(line, "ClientAddress") {
        json::put_endpoint(fields, json::text(client));
    }
    duration(fields, json::member(line, "Duration (us)").map(json::text).unwrap_or_default());
    command(fields, json::member(line, "Command").map(json::text).unwrap_or_default());
    json::member(line, "Timestamp").map_or(When::Unknown, |time| seconds(json::text(time)))
}

/// `cluster,node,[id,]timestamp,duration,command,client,name`: the command may hold commas, so the ends are read first.
fn slow_text(line: &[u8], fields: &mut LogFields) -> When {
    let mut columns = line.splitn(6, |byte| *byte == b',');
    let cluster = columns.next().unwrap_or_default();
    let _node = columns.next();
    let third = columns.next().unwrap_or_default();
    let fourth = columns.next().unwrap_or_default();
    let fifth = columns.next().unwrap_or_default();
    let has_id = scan::number(fifth).is_some() && fourth.len() >= 9;
    let (time, took, rest) = if has_id { (fourth, fifth, columns.next().unwrap_or_default()) } else { (third, fourth, behind_commas(line, 4)) };
    if has_id {
        fields.put(Tax::QueryId, third);
    }
    fields.put(Tax::Instance, cluster);
    let (rest, name) = cut_last(rest, b",").unwrap_or((rest, b""));
    let (text, client) = cut_last(rest, b",").unwrap_or((rest, b""));
    fields.put(Tax::Application, name);
    json::put_endpoint(fields, client);
    duration(fields, took);
    command(fields, text);
    seconds(time)
}

fn behind_commas(line: &[u8], count: usize) -> &[u8] {
    memchr::memchr_iter(b',', line).nth(count - 1).map_or(b"", |at| &line[at + 1..])
}

fn duration(fields: &mut LogFields, microseconds: &[u8]) {
    if let Some(microseconds) = scan::number(microseconds) {
        fields.put_number(Tax::Duration, microseconds / 1000);
    }
}

/// Commands that change or read more than data.
const COMMANDS: &[(&[u8], &str, &str)] = &[
    (b"ACL SETUSER", "account_change", "ROLE"),
    (b"ACL DELUSER", "account_change", "ROLE"),
    (b"ACL LOAD", "account_change", "ROLE"),
    (b"ACL", "query", "MISC"),
    (b"CONFIG SET", "config_change", "MISC"),
    (b"CONFIG REWRITE", "config_change", "MISC"),
    (b"CONFIG RESETSTAT", "config_change", "MISC"),
    (b"REPLICAOF", "config_change", "MISC"),
    (b"SLAVEOF", "config_change", "MISC"),
    (b"MODULE LOAD", "config_change", "MISC"),
    (b"SHUTDOWN", "shutdown", "MISC"),
    (b"SLOWLOG RESET", "audit_change", "MISC"),
    (b"FLUSHALL", "ddl", "WRITE"),
    (b"FLUSHDB", "ddl", "WRITE"),
    (b"SWAPDB", "ddl", "WRITE"),
    (b"CLIENT KILL", "killed", "MISC"),
    (b"EVAL", "query", "FUNCTION"),
    (b"EVALSHA", "query", "FUNCTION"),
    (b"FCALL", "query", "FUNCTION"),
    (b"FUNCTION", "query", "FUNCTION"),
    (b"SCRIPT", "query", "FUNCTION"),
];

const READS: &[&[u8]] = &[
    b"GET",
    b"MGET",
    b"KEYS",
    b"SCAN",
    b"HGETALL",
    b"HGET",
    b"HMGET",
    b"LRANGE",
    b"SMEMBERS",
    b"ZRANGE",
    b"SORT",
    b"DUMP",
    b"EXISTS",
    b"TYPE",
    b"TTL",
    b"XRANGE",
    b"HSCAN",
    b"SSCAN",
    b"ZSCAN",
];

fn command(fields: &mut LogFields, text: &[u8]) {
    let text = text.trim_ascii();
    let name = word(text);
    let second = word(text[name.len()..].trim_ascii_start());
    let mut upper = [0u8; 48];
    let mut len = 0;
    for part in [name, second] {
        let start = if len == 0 { 0 } else { len + 1 };
        if part.is_empty() || part.starts_with(b"...") || start + part.len() > upper.len() {
            break;
        }
        if start > 0 {
            upper[len] = b' ';
        }
        upper[start..start + part.len()].copy_from_slice(part);
        len = start + part.len();
    }
    upper.make_ascii_uppercase();
    let both = &upper[..len];
    let alone = &both[..name.len().min(len)];
    let known = COMMANDS.iter().find(|(known, ..)| *known == both).or_else(|| COMMANDS.iter().find(|(known, ..)| *known == alone));
    let class = if READS.contains(&alone) { "READ" } else { "WRITE" };
    let (command, event, class) = known.map_or((alone, "query", class), |(command, event, class)| (command, event, class));
    fields.put(Tax::Event, event.as_bytes());
    fields.put(Tax::Command, command);
    fields.put(Tax::StatementClass, class.as_bytes());
    put_redacted(fields, Tax::Statement, text);
}

fn engine_json(line: &[u8], fields: &mut LogFields) -> When {
    json::put(fields, Tax::Instance, json::member(line, "CacheClusterId").or_else(|| json::member(line, "ClusterId")));
    json::put(fields, Tax::Severity, json::member(line, "LogLevel"));
    json::put(fields, Tax::Role, json::member(line, "Role"));
    message(fields, json::member(line, "Message").map(json::text).unwrap_or_default());
    json::member(line, "Time").map_or(When::Unknown, |time| written_time(json::text(time)))
}

/// `pid:role DD Mon YYYY HH:MM:SS.mmm level message`; with text delivery, cluster and node stand before it.
fn engine_text(line: &[u8], fields: &mut LogFields) -> When {
    let mut rest = line;
    let digits = scan::digits(line);
    if line.get(digits) == Some(&b':') && digits > 0 {
        fields.put(Tax::SessionPid, &line[..digits]);
        fields.put(Tax::Role, line.get(digits + 1..digits + 2).unwrap_or_default());
        rest = line.get(digits + 3..).unwrap_or_default();
    }
    let when = written_time(rest);
    if when == When::Unknown {
        message(fields, line);
        return when;
    }
    let rest = rest.splitn(5, |byte| *byte == b' ').nth(4).unwrap_or_default();
    if let Some((level, text)) = cut(rest, b" ").filter(|(level, _)| level.len() == 1) {
        fields.put(Tax::Severity, level);
        message(fields, text);
    } else {
        message(fields, rest);
    }
    when
}

/// `24 Nov 2026 02:54:03.880`, perhaps with ` UTC`.
fn written_time(text: &[u8]) -> When {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut parts = text.split(|byte| *byte == b' ');
    let day = parts.next().and_then(scan::number);
    let month = parts.next().filter(|name| name.len() == 3).and_then(|name| MONTHS.chunks(3).position(|month| month == name));
    let year = parts.next().and_then(scan::number);
    let clock = parts.next().unwrap_or_default();
    let (Some(day), Some(month), Some(year)) = (day, month, year) else {
        return scan::date_time(text).map_or(When::Unknown, |stamp| When::At(stamp.ms));
    };
    scan::clock_ms(clock)
        .and_then(|ms| Some(scan::civil_ms(year.min(9999) as i64, month as i64 + 1, day.min(99) as i64, 0)? + ms))
        .map_or(When::Unknown, When::At)
}

const WORDS: &[(&[u8], &str)] = &[
    (b"Ready to accept connections", "startup"),
    (b"Redis is now ready to exit", "shutdown"),
    (b"User requested shutdown", "shutdown"),
    (b"Received SIGTERM", "shutdown"),
    (b"REDIS BUG REPORT", "crash"),
    (b"crashed by signal", "crash"),
    (b"Possible SECURITY ATTACK", "garbage"),
    (b"Accepted ", "connection"),
    (b"Client closed connection", "logout"),
    (b"CONFIG REWRITE", "config_change"),
];

fn message(fields: &mut LogFields, text: &[u8]) {
    let event = WORDS.iter().find(|(words, _)| memchr::memmem::find(text, words).is_some()).map_or("other", |(_, event)| event);
    if event == "connection" {
        json::put_endpoint(fields, word(text.strip_prefix(b"Accepted ").unwrap_or_default()));
    } else if event == "logout" {
        json::put_endpoint(fields, scan::between(text, b" addr=", b" ").unwrap_or_default());
        fields.put(Tax::User, scan::between(text, b" user=", b" ").unwrap_or_default());
    }
    fields.put(Tax::Event, event.as_bytes());
    put_redacted(fields, Tax::Message, text);
}
