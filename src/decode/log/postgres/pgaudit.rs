//! pgaudit's line behind `AUDIT: `: comma-separated fields with RFC 4180 quotes, perhaps over several lines, perhaps cut.
//!
//! In: `SESSION,1,1,READ,SELECT,TABLE,public.t,SELECT …,<none>[,rows]`. Out: class, command, object, statement, parameters,
//! rows. Invariant: a line that was cut anywhere still yields what stands before the cut.

use super::super::{
    fields::LogFields,
    scan,
    statement::{self, put_redacted},
    tax::Tax,
};

/// One field of the line: its raw inside, and whether quotes within are doubled.
struct Csv<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Csv<'a> {
    type Item = (&'a [u8], bool);

    fn next(&mut self) -> Option<(&'a [u8], bool)> {
        let rest = self.rest?;
        let Some(inside) = rest.strip_prefix(b"\"") else {
            let end = memchr::memchr(b',', rest).unwrap_or(rest.len());
            self.rest = rest.get(end + 1..);
            return Some((&rest[..end], false));
        };
        let (mut at, mut doubled) = (0, false);
        while let Some(quote) = memchr::memchr(b'"', &inside[at..]) {
            at += quote;
            if inside.get(at + 1) != Some(&b'"') {
                self.rest = inside.get(at + 2..).filter(|_| inside.get(at + 1) == Some(&b','));
                return Some((&inside[..at], doubled));
            }
            doubled = true;
            at += 2;
        }
        self.rest = None;
        Some((inside, doubled))
    }
}

/// Sets the fields of an audit line; `scratch` holds the statement while its quotes are undone.
pub(super) fn fill(line: &[u8], fields: &mut LogFields, scratch: &mut Vec<u8>) {
    let mut csv = Csv { rest: Some(line) };
    let _mode = csv.next();
    if let Some((id, _)) = csv.next() {
        fields.put(Tax::QueryId, id);
    }
    let _substatement = csv.next();
    let class = csv.next().unwrap_or_default().0;
    let command = csv.next().unwrap_or_default().0;
    let kind = csv.next().unwrap_or_default().0;
    let (object, doubled) = csv.next().unwrap_or_default();
    fields.put(Tax::StatementClass, class);
    fields.put(Tax::ObjectType, kind);
    if doubled {
        fields.put_with(Tax::ObjectName, |arena| undouble(object, arena));
    } else {
        fields.put(Tax::ObjectName, object);
    }
    let (raw, doubled) = csv.next().unwrap_or_default();
    let text = if doubled {
        scratch.clear();
        undouble(raw, scratch);
        &scratch[..]
    } else {
        raw
    };
    let (event, command_text) = judge(class, command, text);
    fields.put(Tax::Event, event.as_bytes());
    match command_text {
        Some(statement) => fields.put(Tax::Command, statement.command()),
        None => fields.put(Tax::Command, command),
    }
    if !text.starts_with(b"<previously logged>") {
        put_redacted(fields, Tax::Statement, text);
    }
    if let Some((parameters, doubled)) = csv.next()
        && !matches!(parameters, b"<none>" | b"<not logged>")
    {
        if doubled {
            scratch.clear();
            undouble(parameters, scratch);
            put_redacted(fields, Tax::Parameters, scratch);
        } else {
            put_redacted(fields, Tax::Parameters, parameters);
        }
    }
    if let Some((rows, _)) = csv.next()
        && scan::number(rows).is_some()
    {
        fields.put(Tax::Rows, rows);
    }
}

/// The event, and the statement when its own words say more than pgaudit's command (COPY is SELECT to it).
fn judge<'a>(class: &[u8], command: &[u8], text: &'a [u8]) -> (&'static str, Option<statement::Statement<'a>>) {
    let plain = match class {
        b"ROLE" if command.starts_with(b"GRANT") || command.starts_with(b"REVOKE") => "grant",
        b"ROLE" => "account_change",
        b"DDL" if command == b"ALTER DEFAULT PRIVILEGES" => "grant",
        b"DDL" => "ddl",
        _ => "query",
    };
    let words = matches!(command, b"SET" | b"RESET" | b"ALTER SYSTEM" | b"ALTER ROLE" | b"ALTER DATABASE" | b"ALTER USER");
    let copies =
        matches!(command, b"SELECT" | b"INSERT" | b"COPY") && text.trim_ascii_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"copy"));
    if !words && !copies {
        return (plain, None);
    }
    let statement = statement::classify(text);
    let event = match statement.event() {
        event @ ("audit_change" | "config_change") => event,
        _ => plain,
    };
    (event, copies.then_some(statement))
}

/// `""` to `"`.
fn undouble(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}
