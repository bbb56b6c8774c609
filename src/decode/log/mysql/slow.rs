//! The slow query log of MySQL and MariaDB.
//!
//! In: `# Time`, `# User@Host`, `# Query_time` and further header lines, then `use`, `SET timestamp` and the statement,
//! unescaped. Out: one event a statement. Invariant: an entry begins only with headers that are followed by `# Query_time`;
//! a statement can still imitate those, so this log is no evidence (docs/fields.md).

use super::super::{
    LogEvent, LogFields, Sink, When,
    scan::{self, cut, cut_last, word},
    statement,
    tax::Tax,
};

/// Header lines between `# User@Host` and `# Query_time`.
const MOST_HEADERS: usize = 3;

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(in crate::decode::log) struct Scratch {
    /// Where each entry begins.
    starts: Vec<usize>,
}

impl Scratch {
    pub(in crate::decode::log) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        self.split(text);
        let first = self.starts.first().copied().unwrap_or(text.len());
        sink.skip(first);
        let mut when = When::Unknown;
        for (index, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(index + 1).copied().unwrap_or(text.len());
            fields.begin_event();
            let raw = text[*start..end].trim_ascii_end();
            let product = fill(raw, fields, &mut when);
            sink.emit(fields, product, *start, *start + raw.len(), when);
        }
    }

    fn split(&mut self, text: &[u8]) {
        self.starts.clear();
        let mut at = 0;
        let mut in_headers = false;
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            if line.starts_with(b"# Time: ") && is_followed(text, next, b"# User@Host: ", 1)
                || !in_headers && line.starts_with(b"# User@Host: ") && is_followed(text, next, b"# Query_time: ", MOST_HEADERS)
            {
                self.starts.push(at);
                in_headers = true;
            } else if !line.starts_with(b"# ") {
                in_headers = false;
            }
            at = next;
        }
    }
}

/// Whether one of the next `most` lines starts so.
fn is_followed(text: &[u8], mut at: usize, lead: &[u8], most: usize) -> bool {
    for _ in 0..most {
        let (line, next) = scan::line(text, at.min(text.len()));
        if line.starts_with(lead) {
            return true;
        }
        if !line.starts_with(b"# ") {
            return false;
        }
        at = next;
    }
    false
}

/// Sets the fields; returns the product.
fn fill(raw: &[u8], fields: &mut LogFields, when: &mut When) -> &'static str {
    let mut product = "mysql";
    let mut at = 0;
    while at < raw.len() {
        let (line, next) = scan::line(raw, at);
        if let Some(time) = line.strip_prefix(b"# Time: ") {
            if let Some(stamp) = scan::date_time(time) {
                *when = When::At(stamp.ms - scan::zone_ms(word(&time[stamp.len..])).unwrap_or_default());
            } else if let Some(stamp) = scan::compact_date_time(time) {
                *when = When::Zoneless(stamp.ms);
                product = "mariadb";
            }
        } else if let Some(account) = line.strip_prefix(b"# User@Host: ") {
            who(account, fields);
        } else if let Some(rest) = line.strip_prefix(b"# Thread_id: ") {
            product = "mariadb";
            fields.put(Tax::SessionPid, word(rest));
            fields.put(Tax::Name, value(rest, b"Schema: "));
        } else if let Some(rest) = line.strip_prefix(b"# Query_time: ") {
            if let Some(ms) = milliseconds(word(rest)) {
                fields.put_number(Tax::Duration, ms);
            }
            fields.put(Tax::Rows, value(rest, b"Rows_sent: "));
        } else if let Some(database) = line.strip_prefix(b"use ")
            && !line.starts_with(b"# ")
        {
            fields.set(Tax::Name, database.strip_suffix(b";").unwrap_or(database));
        } else if line.starts_with(b"SET timestamp=") {
            at = next;
            break;
        } else if !line.starts_with(b"# ") {
            break;
        }
        at = next;
    }
    fields.put(Tax::Engine, product.as_bytes());
    let sql = raw[at.min(raw.len())..].trim_ascii();
    let sql = sql.strip_suffix(b";").unwrap_or(sql);
    let event = if sql.starts_with(b"# administrator command: ") { "other" } else { statement::put(fields, sql) };
    fields.put(Tax::Event, event.as_bytes());
    product
}

/// The word behind `name`.
fn value<'a>(rest: &'a [u8], name: &[u8]) -> &'a [u8] {
    cut(rest, name).map_or(b"", |(_, value)| word(value))
}

/// `priv_user[user] @ host [address]  Id: N`.
fn who(account: &[u8], fields: &mut LogFields) {
    let (account, id) = cut_last(account, b"Id: ").unwrap_or((account, b""));
    fields.put(Tax::SessionPid, id.trim_ascii());
    let Some((names, host)) = cut_last(account, b"] @ ") else { return };
    fields.put(Tax::User, cut_last(names, b"[").map_or(names, |(_, user)| user));
    let (name, address) = cut(host, b"[").unwrap_or((host, b""));
    let address = cut(address, b"]").map_or(&b""[..], |(address, _)| address);
    fields.put(Tax::ClientAddress, if address.is_empty() { name.trim_ascii() } else { address });
}

/// `1.000255` seconds.
fn milliseconds(seconds: &[u8]) -> Option<u64> {
    let (whole, fraction) = cut(seconds, b".").unwrap_or((seconds, b""));
    let whole = scan::number(whole).filter(|whole| *whole < 1_000_000_000)?;
    let ms = fraction.iter().chain(b"000").take(3).try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))?;
    Some(whole * 1000 + ms)
}
