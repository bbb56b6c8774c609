//! The prefix of a line, piece by piece.
//!
//! In: text and the offset of a line. Out: where the user's name begins, and every place where the prefix may end.
//! Invariant: the time and the client's address are the server's own; between the address and `:[pid]:` stand at most
//! 63 + 1 + 63 bytes that a client chose freely (NUL and its own length are its only limits).

use super::super::scan;

/// Longest user or database name in bytes: NAMEDATALEN - 1.
const MOST_NAME: usize = 63;
/// From the user's first byte to the `:` before the process id.
pub(super) const REACH: usize = MOST_NAME + 1 + MOST_NAME;
/// Longest host name that `%r` may show.
const MOST_HOST: usize = 255;
/// Candidates that are told apart; more than that is an attack anyway.
pub(super) const MOST: usize = 8;

pub(super) type Range = (u32, u32);

/// Severity or field name of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Log,
    Info,
    Notice,
    Warning,
    Error,
    Fatal,
    Panic,
    Debug,
    Detail,
    Hint,
    Query,
    Context,
    Location,
    Statement,
    Backtrace,
}

const SEVERITIES: &[(&[u8], Severity)] = &[
    (b"LOG", Severity::Log),
    (b"DETAIL", Severity::Detail),
    (b"STATEMENT", Severity::Statement),
    (b"ERROR", Severity::Error),
    (b"FATAL", Severity::Fatal),
    (b"HINT", Severity::Hint),
    (b"CONTEXT", Severity::Context),
    (b"WARNING", Severity::Warning),
    (b"NOTICE", Severity::Notice),
    (b"INFO", Severity::Info),
    (b"PANIC", Severity::Panic),
    (b"QUERY", Severity::Query),
    (b"LOCATION", Severity::Location),
    (b"BACKTRACE", Severity::Backtrace),
    (b"DEBUG", Severity::Debug),
    (b"DEBUG1", Severity::Debug),
    (b"DEBUG2", Severity::Debug),
    (b"DEBUG3", Severity::Debug),
    (b"DEBUG4", Severity::Debug),
    (b"DEBUG5", Severity::Debug),
];

impl Severity {
    /// Whether the line adds to a message instead of beginning one.
    pub(super) fn is_secondary(self) -> bool {
        use Severity::*;
        matches!(self, Detail | Hint | Query | Context | Location | Statement | Backtrace)
    }

    pub(super) fn as_bytes(self) -> &'static [u8] {
        SEVERITIES.iter().find(|(_, severity)| *severity == self).map_or(b"", |(name, _)| name)
    }
}

/// The severity at the start of `bytes`, and where the text behind it begins.
fn severity(bytes: &[u8]) -> Option<(Severity, usize)> {
    if !bytes.first()?.is_ascii_uppercase() {
        return None;
    }
    let len = bytes.iter().take(10).position(|byte| *byte == b':')?;
    let (_, severity) = SEVERITIES.iter().find(|(name, _)| *name == &bytes[..len])?;
    let blanks = bytes[len + 1..].iter().take(2).take_while(|byte| **byte == b' ').count();
    (blanks > 0).then_some((*severity, len + 1 + blanks))
}

/// The part of a prefix that no client can write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub time_ms: Option<i64>,
    /// The second prefix, with milliseconds.
    pub long: bool,
    pub remote: Range,
    /// Offset of the user's first byte.
    pub user: usize,
}

/// Reads time and client address at the start of a line.
pub(super) fn start(text: &[u8], at: usize) -> Option<Start> {
    let rest = &text[at..];
    if rest.get(4) != Some(&b'-') {
        return None;
    }
    let mut skip = 0;
    let mut stamp = scan::date_time(rest)?;
    if rest[10] == b'T' {
        // An exporter's own time before the line.
        skip = stamp.len + 2;
        if rest.get(stamp.len..skip) != Some(b"Z ") {
            return None;
        }
        stamp = scan::date_time(&rest[skip..])?;
    }
    let rest = rest[skip + stamp.len..].strip_prefix(b" ")?;
    let zone = rest.iter().take(8).position(|byte| *byte == b':')?;
    if !rest[..zone].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-')) {
        return None;
    }
    let remote = at + skip + stamp.len + 1 + zone + 1;
    let len = remote_len(&text[remote..])?;
    Some(Start {
        time_ms: scan::zone_ms(&rest[..zone]).map(|zone_ms| stamp.ms - zone_ms),
        long: stamp.has_fraction,
        remote: (remote as u32, (remote + len) as u32),
        user: remote + len + 1,
    })
}

/// Length of `%r`: nothing, `[local]` or `host(port)`; a `:` follows it.
fn remote_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        // Only background processes and the first line of a connection have no address.
        b':' if bytes.starts_with(b":@:[") || bytes.starts_with(b":[unknown]@[unknown]:[") => Some(0),
        b'[' => bytes.starts_with(b"[local]:").then_some(7),
        _ => {
            let host = bytes.iter().take(MOST_HOST).take_while(|byte| byte.is_ascii_alphanumeric() || b".:%-_".contains(byte)).count();
            if bytes.get(host) != Some(&b'(') {
                return None;
            }
            let port = scan::digits(&bytes[host + 1..]);
            (port > 0 && port <= 5 && bytes[host + 1 + port..].starts_with(b"):")).then_some(host + port + 2)
        }
    }
}

/// A place where the prefix may end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Offset of the `:` behind the database.
    pub at: usize,
    /// Offset of the `@` before the database.
    pub sign: usize,
    pub pid: Range,
    pub severity: Severity,
    /// Offset of the message.
    pub body: usize,
    /// SQLSTATE, session id and application; empty with the first prefix.
    pub state: Range,
    pub session: Range,
    pub application: Range,
    /// The application's name may itself hold a severity.
    pub ambiguous: bool,
}

/// Hands each place where the prefix may end to `each`, in order: from `user` on, within reach, before `limit`.
pub(super) fn candidates(text: &[u8], user: usize, limit: usize, long: bool, mut each: impl FnMut(Candidate)) {
    let limit = limit.min(user + REACH + 2).min(text.len());
    let Some(window) = text.get(user..limit) else { return };
    for at in memchr::memchr_iter(b'[', window) {
        let bracket = user + at;
        if at == 0 || text[bracket - 1] != b':' {
            continue;
        }
        if let Some(found) = candidate(text, user, bracket - 1, long) {
            each(found);
        }
    }
}

fn candidate(text: &[u8], user: usize, at: usize, long: bool) -> Option<Candidate> {
    let from = user.max(at.saturating_sub(MOST_NAME + 1));
    let to = at.min(user + MOST_NAME + 1);
    let sign = from + memchr::memrchr(b'@', text.get(from..to)?)?;
    let pid = at + 2;
    let digits = scan::digits(&text[pid..]);
    if digits == 0 || digits > 10 || !text[pid + digits..].starts_with(b"]:") {
        return None;
    }
    let mut found = Candidate {
        at,
        sign,
        pid: (pid as u32, (pid + digits) as u32),
        severity: Severity::Log,
        body: 0,
        state: (0, 0),
        session: (0, 0),
        application: (0, 0),
        ambiguous: false,
    };
    let behind = pid + digits + 2;
    if long {
        long_tail(text, behind, &mut found)?;
    } else {
        let (severity, len) = severity(&text[behind..])?;
        (found.severity, found.body) = (severity, behind + len);
    }
    Some(found)
}

/// `%l:%e:%s:%v:%x:%c:%q%a` and the severity that is glued to it.
fn long_tail(text: &[u8], mut at: usize, found: &mut Candidate) -> Option<()> {
    let piece = |at: usize, most: usize, allowed: fn(&u8) -> bool| {
        let len = text.get(at..)?.iter().take(most).take_while(|byte| allowed(byte)).count();
        (text.get(at + len) == Some(&b':')).then_some(len)
    };
    at += piece(at, 12, u8::is_ascii_digit)? + 1;
    if piece(at, 5, u8::is_ascii_alphanumeric)? != 5 {
        return None;
    }
    found.state = (at as u32, at as u32 + 5);
    at += 6;
    at += scan::date_time(text.get(at..)?)?.len;
    at += piece(at, 8, |byte| byte.is_ascii_alphanumeric() || b" +-".contains(byte))? + 1;
    at += piece(at, 24, |byte| byte.is_ascii_digit() || b"/-".contains(byte))? + 1;
    at += piece(at, 12, u8::is_ascii_digit)? + 1;
    let session = piece(at, 24, |byte| byte.is_ascii_hexdigit() || *byte == b'.')?;
    found.session = (at as u32, (at + session) as u32);
    at += session + 1;
    let failed = &text[found.state.0 as usize..found.state.1 as usize] != b"00000";
    let mut place = None;
    for offset in 0..=MOST_NAME {
        let Some(rest) = text.get(at + offset..) else { break };
        if rest.first().is_none_or(|byte| *byte == b'\n') {
            break;
        }
        let Some((severity, len)) = severity(rest) else { continue };
        // A severity that the SQLSTATE rules out is text.
        if !failed && matches!(severity, Severity::Error | Severity::Fatal | Severity::Panic | Severity::Warning) {
            continue;
        }
        if place.is_none() {
            place = Some((severity, at + offset, at + offset + len));
        } else if offset >= place.map_or(0, |(_, _, body)| body - at) {
            found.ambiguous = true;
        }
    }
    let (severity, application_end, body) = place?;
    (found.severity, found.body, found.application) = (severity, body, (at as u32, application_end as u32));
    Some(())
}
