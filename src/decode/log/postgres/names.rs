//! Whether a message repeats the names of its prefix: the proof that an odd prefix was read as the server meant it.
//!
//! In: a candidate and the text behind it. Out: yes or no. Invariant: only messages that the server writes to a client that
//! has just named itself count, and the name in them must be the prefix's, byte by byte.

use super::prefix::{Candidate, Severity};

/// Messages before a session is open that name nobody.
const NAMELESS: &[&[u8]] = &[
    b"sorry, too many clients already",
    b"remaining connection slots are reserved",
    b"the database system is ",
    b"canceling authentication due to timeout",
    b"connection requires a valid client certificate",
];

/// Whether the message behind `found` is one that a client's name can stand before, and repeats that name; messages that name
/// nobody are no proof where `strict`.
pub(super) fn repeats(text: &[u8], user: usize, found: &Candidate, strict: bool) -> bool {
    let body = &text[found.body.min(text.len())..];
    let (name, database) = (&text[user..found.sign], &text[found.sign + 1..found.at]);
    let named = |mark: &[u8], name: &[u8], close: &[u8]| {
        memchr::memmem::find(&body[..body.len().min(512)], mark).is_some_and(|at| repeated(&body[at + mark.len()..], name, close))
    };
    match found.severity {
        Severity::Fatal => {
            named(b" authentication failed for user \"", name, b"\"")
                || named(b", user \"", name, b"\"") && (body.starts_with(b"no pg_hba.conf entry") || body.starts_with(b"pg_hba.conf rejects"))
                || body.starts_with(b"role \"") && named(b"role \"", name, b"\"")
                || body.starts_with(b"too many connections for role \"") && named(b"role \"", name, b"\"")
                || !strict && body.starts_with(b"database \"") && named(b"database \"", database, b"\"")
                || !strict && body.starts_with(b"permission denied for database \"") && named(b"database \"", database, b"\"")
                || !strict && body.starts_with(b"too many connections for database \"") && named(b"database \"", database, b"\"")
                || !strict && NAMELESS.iter().any(|start| body.starts_with(start))
        }
        Severity::Detail => {
            body.starts_with(b"Role \"") && named(b"Role \"", name, b"\" does not exist")
                || body.starts_with(b"User \"") && named(b"User \"", name, b"\" has ")
                || body.starts_with(b"Password does not match for user \"") && named(b"user \"", name, b"\"")
        }
        Severity::Log => {
            body.starts_with(b"connection authenticated: identity=\"") && named(b"identity=\"", name, b"\" method=")
                || body.starts_with(b"connection authenticated: user=\"") && named(b"user=\"", name, b"\" method=")
                || body.starts_with(b"connection authorized: user=")
                    && named(b"user=", name, b" database=")
                    && (named(b" database=", database, b" ") || named(b" database=", database, b"\n"))
        }
        _ => false,
    }
}

/// Whether `bytes` begin with `name` and then `close`, where a newline of the name stands as newline and TAB.
fn repeated(bytes: &[u8], name: &[u8], close: &[u8]) -> bool {
    let mut rest = bytes;
    for (index, part) in name.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            let Some(behind) = rest.strip_prefix(b"\n\t") else { return false };
            rest = behind;
        }
        let Some(behind) = rest.strip_prefix(part) else { return false };
        rest = behind;
    }
    rest.starts_with(close)
}
