//! One audit record of Oracle, in its two forms.
//!
//! In: the batch's text and where the record's fields begin. Out: a `Record` of slices and the offset behind it. Invariant: every
//! byte is looked at a bounded number of times, whatever the text.

use super::When;
use crate::decode::log::scan;

/// Fields of one record that are read; a record has some twenty.
const MOST_FIELDS: usize = 64;
/// Longest name of a field.
const MOST_NAME: usize = 32;

/// What is told of; slices of the batch's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub when: When,
    /// XML: values have entities.
    pub escaped: bool,
    /// Number of the action.
    pub action: Option<u64>,
    /// Statement, or what SYS did.
    pub sql: &'a [u8],
    pub user: &'a [u8],
    pub os_user: &'a [u8],
    pub privilege: &'a [u8],
    /// Number of the `ORA-` error, 0 for none.
    pub code: &'a [u8],
    pub session: &'a [u8],
    pub process: &'a [u8],
    pub statement: &'a [u8],
    pub address: &'a [u8],
    pub comment: &'a [u8],
    pub owner: &'a [u8],
    pub object: &'a [u8],
}

impl<'a> Record<'a> {
    fn new(escaped: bool) -> Self {
        let none: &[u8] = b"";
        Self {
            when: When::Unknown,
            escaped,
            action: None,
            sql: none,
            user: none,
            os_user: none,
            privilege: none,
            code: none,
            session: none,
            process: none,
            statement: none,
            address: none,
            comment: none,
            owner: none,
            object: none,
        }
    }

    /// Whether it says neither who nor what.
    pub(super) fn is_empty(&self) -> bool {
        self.action.is_none() && self.sql.is_empty() && self.user.is_empty()
    }

    fn set(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"DATABASE USER" | b"USERID" | b"DB_User" => self.user = value,
            b"CLIENT USER" | b"OS$USERID" | b"OS_User" => self.os_user = value,
            b"PRIVILEGE" | b"OS_Privilege" => self.privilege = value,
            b"STATUS" | b"RETURNCODE" | b"Returncode" => self.code = value,
            b"SESSIONID" | b"Session_Id" => self.session = value,
            b"OS_Process" => self.process = value,
            b"STATEMENT" | b"StatementId" => self.statement = value,
            b"CLIENT ADDRESS" => self.address = value,
            b"COMMENT$TEXT" | b"Comment_Text" => self.comment = value,
            b"OBJ$CREATOR" | b"Object_Schema" => self.owner = value,
            b"OBJ$NAME" | b"Object_Name" => self.object = value,
            b"SQL$TEXT" | b"Sql_Text" => self.sql = value,
            b"ACTION NUMBER" | b"Action" => self.action = scan::number(value),
            // SYS's records have the statement there, the others its number.
            b"ACTION" => match scan::number(value) {
                Some(number) => self.action = Some(number),
                None => self.sql = value,
            },
            b"Extended_Timestamp" => self.when = scan::date_time(value).map_or(When::Unknown, |stamp| When::At(stamp.ms)),
            _ => {}
        }
    }
}

/// `<AuditRecord><Audit_Type>1</Audit_Type>…</AuditRecord>` at `start`.
pub(super) fn xml(text: &[u8], start: usize) -> (Record<'_>, usize) {
    const END: &[u8] = b"</AuditRecord>";
    let mut record = Record::new(true);
    let rest = &text[start + 1..];
    let cut_off = memchr::memmem::find(rest, b"<AuditRecord").map_or(text.len(), |at| start + 1 + at);
    let end = memchr::memmem::find(&text[start..cut_off], END).map_or(cut_off, |at| start + at + END.len());
    let body = &text[start..end];
    let mut at = memchr::memchr(b'>', body).map_or(body.len(), |at| at + 1);
    for _ in 0..MOST_FIELDS {
        let Some(open) = memchr::memchr(b'<', &body[at..]).map(|found| at + found + 1) else { break };
        let Some(close) = body.get(open..).and_then(|rest| memchr::memchr(b'>', rest)).map(|found| open + found) else { break };
        let name = &body[open..close];
        let value = &body[close + 1..];
        let value = &value[..memchr::memchr(b'<', value).unwrap_or(value.len())];
        at = close + 1 + value.len();
        if name.first() != Some(&b'/') {
            record.set(name, value);
        }
    }
    (record, behind_line(text, end))
}

/// `NAME:[length] 'value'`, one after the other, at `start`.
pub(super) fn text(text: &[u8], start: usize) -> (Record<'_>, usize) {
    let mut record = Record::new(false);
    let mut at = start;
    let mut limit = None;
    for _ in 0..MOST_FIELDS {
        let next = at + text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let Some((name, length, quote, value)) = head(text, next) else { break };
        let end = value.saturating_add(length);
        let fits = text.get(end) == Some(&quote) && text.get(end + 1).is_none_or(u8::is_ascii_whitespace);
        let end = if fits {
            end
        } else {
            // Cut off, or its length was counted in another character set: up to the quote before the next field.
            let limit = *limit.get_or_insert_with(|| memchr::memmem::find(&text[value..], b"\nLENGTH").map_or(text.len(), |at| value + at));
            closing(text, value, limit.max(value), quote)
        };
        record.set(name, &text[value..end]);
        at = (end + 1).min(text.len());
    }
    (record, behind_line(text, at))
}

/// `NAME :[12] '` at `at`: name, length, quote, and where the value begins.
fn head(text: &[u8], at: usize) -> Option<(&[u8], usize, u8, usize)> {
    let rest = &text[at..];
    let colon = rest.iter().take(MOST_NAME).position(|byte| *byte == b':')?;
    let name = rest[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'$' | b'_' | b' ' | b'#'));
    let digits = scan::digits(rest.get(colon + 2..)?.get(..8.min(rest.len() - colon - 2))?);
    let length = scan::number(&rest[colon + 2..colon + 2 + digits])? as usize;
    let behind = rest.get(colon + 2 + digits..colon + 5 + digits)?;
    let quote = behind[2];
    (is_name && rest[colon + 1] == b'[' && behind.starts_with(b"] ") && matches!(quote, b'\'' | b'"')).then_some((
        name,
        length,
        quote,
        at + colon + 5 + digits,
    ))
}

/// The quote that ends a value whose length doesn't hold: the first one with a field or the record's end behind it.
fn closing(text: &[u8], start: usize, limit: usize, quote: u8) -> usize {
    let ends = |at: &usize| {
        let blank = text[at + 1..limit].iter().take(3).take_while(|byte| byte.is_ascii_whitespace()).count();
        let next = at + 1 + blank;
        next >= limit || blank > 0 && (head(text, next).is_some() || text[at + 1..limit].starts_with(b"\n\n"))
    };
    memchr::memchr_iter(quote, &text[start..limit]).map(|at| start + at).find(ends).unwrap_or(limit)
}

/// Behind the rest of the line, if that is blank.
fn behind_line(text: &[u8], at: usize) -> usize {
    let blank = text[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\r')).count();
    if text.get(at + blank) == Some(&b'\n') { at + blank + 1 } else { at + blank }
}
