//! Clear-text secrets taken out of statements and messages, before anything is kept or sent.
//!
//! In: text of any engine, perhaps cut in the middle. Out: the same text with each secret's value replaced by `<redacted>`.
//! Invariant: a literal that follows a word for a secret never survives, also when its closing quote was cut off; the pass
//! is linear.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind, packed};

/// What stands in place of a secret.
pub const MASK: &[u8] = b"<redacted>";

/// What introduces a secret's value, and how its value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// The next literal is the secret: `PASSWORD 'x'`, `PASSWORD = 'x'`, `PASSWORD('x')`, `password=x` in a connection string.
    Value,
    /// `IDENTIFIED BY 'x'`, `IDENTIFIED WITH plugin BY 'x'`, `IDENTIFIED WITH plugin AS 'hash'`, `IDENTIFIED VIA x USING 'hash'`.
    Identified,
}

const LEADS: &[(&str, Lead)] = &[
    ("identified", Lead::Identified),
    ("password", Lead::Value),
    ("passwd", Lead::Value),
    ("pwd", Lead::Value),
    ("secret_access_key", Lead::Value),
    ("aws_access_key_id", Lead::Value),
    ("access_key_id", Lead::Value),
    ("session_token", Lead::Value),
    ("secret", Lead::Value),
    ("credentials", Lead::Value),
    ("passphrase", Lead::Value),
    ("api_key", Lead::Value),
];

/// Most words that may stand between the lead and its literal: `FOR 'u'@'h' =` is handled apart.
const MOST_WORDS: usize = 6;

/// A word without quotes that is longer isn't one of SQL's; keeps the pass linear.
const LONGEST_WORD: usize = 64;

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .kind(Some(AhoCorasickKind::DFA))
        .build(LEADS.iter().map(|(word, _)| word))
        .expect("a dozen short words compile")
});

/// The same words in small letters, looked for with vectors; `None` on a processor without.
static QUICK: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| packed::Searcher::new(LEADS.iter().map(|(word, _)| word)));

/// Text is folded in pieces of this size; each begins with the end of the one before, so that no word is cut.
const PIECE: usize = 512;
/// Of the longest word, less one.
const OVERLAP: usize = {
    let (mut longest, mut at) = (0, 0);
    while at < LEADS.len() {
        if LEADS[at].0.len() > longest {
            longest = LEADS[at].0.len();
        }
        at += 1;
    }
    longest - 1
};

/// Whether some word for a secret occurs, so that `redact` may find something.
pub fn is_suspect(text: &[u8]) -> bool {
    let Some(quick) = &*QUICK else { return FINDER.is_match(text) };
    let mut room = [0; PIECE];
    let mut at = 0;
    loop {
        let end = text.len().min(at + PIECE);
        let piece = &mut room[..end - at];
        piece.copy_from_slice(&text[at..end]);
        piece.make_ascii_lowercase();
        if quick.find(piece).is_some() {
            return true;
        }
        if end == text.len() {
            return false;
        }
        at = end - OVERLAP;
    }
}

/// Appends `text` to `out` with secrets masked; whether there was any.
pub fn redact(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut copied = 0;
    let mut any = false;
    for found in FINDER.find_iter(text) {
        if found.start() < copied {
            continue;
        }
        let lead = LEADS[found.pattern().as_usize()].1;
        let Some((start, end)) = value_after(text, found.start(), found.end(), lead) else { continue };
        if &text[start..end] == MASK || is_masked(&text[start..end]) {
            continue;
        }
        out.extend_from_slice(&text[copied..start]);
        out.extend_from_slice(MASK);
        copied = end;
        any = true;
    }
    out.extend_from_slice(&text[copied..]);
    any
}

/// The server has masked it already: `*****`, `<REDACTED>`, `NULL`.
fn is_masked(value: &[u8]) -> bool {
    value.is_empty()
        || value.iter().all(|byte| *byte == b'*')
        || [MASK, b"null", b"yes", b"no", b"on", b"off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Where the value lies that the word at `word..at` introduces: the inside of its quotes, or a bare value.
fn value_after(text: &[u8], word: usize, at: usize, lead: Lead) -> Option<(usize, usize)> {
    let mut at = at;
    // `password'` or `"password" :` close the word's own quotes first; `\"` in JSON within JSON.
    let opened = word > 0 && matches!(text[word - 1], b'"' | b'\'' | b'`');
    if opened && text.get(at) == Some(&text[word - 1]) {
        at += 1;
    } else if opened && text.get(at) == Some(&b'\\') && text.get(at + 1) == Some(&text[word - 1]) {
        at += 2;
    } else if text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && lead == Lead::Identified {
        return None;
    } else if text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        // A longer name, such as `password_encryption` or `old_passwords`: a secret only with a sign behind it.
        at += text[at..].iter().take(LONGEST_WORD).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let rest = &text[at..];
        let sign = blanks(rest);
        if !matches!(rest.get(sign), Some(b'=' | b':')) || !matches!(rest.get(sign + 1), Some(b'\'' | b'"' | b' ')) {
            return None;
        }
    }
    let mut signed = false;
    for _ in 0..=MOST_WORDS {
        at += blanks(&text[at..]);
        match *text.get(at)? {
            quote @ (b'\'' | b'"') => return Some(quoted(text, at, quote)),
            b'\\' if matches!(text.get(at + 1), Some(b'\'' | b'"')) => return Some(escaped(text, at + 2, text[at + 1])),
            b'$' => return dollar(text, at),
            b'=' | b':' => {
                signed = true;
                at += 1;
                at += usize::from(text.get(at) == Some(&b'='));
            }
            b'(' | b',' => at += 1,
            _ => {
                let word = bare(if signed { &text[at..] } else { &text[at..text.len().min(at + LONGEST_WORD + 1)] });
                if word == 0 || (word > LONGEST_WORD && !signed) {
                    return None;
                }
                let bytes = &text[at..at + word];
                if signed && !is_filler(bytes) {
                    return Some((at, at + word));
                }
                if bytes.eq_ignore_ascii_case(b"for") {
                    at = account(text, at + word)?;
                } else if is_prefix_of_literal(bytes) || is_filler(bytes) || lead == Lead::Identified {
                    at += word;
                } else {
                    return None;
                }
            }
        }
    }
    None
}

/// Words that may stand between the lead and the literal.
fn is_filler(word: &[u8]) -> bool {
    [&b"by"[..], b"as", b"is", b"to", b"with", b"using", b"via", b"hash", b"encrypted", b"password", b"old_password", b"n", b"e", b"x", b"b"]
        .iter()
        .any(|filler| word.eq_ignore_ascii_case(filler))
}

/// `E'…'`, `N'…'`, `U&'…'`, `_utf8'…'`.
fn is_prefix_of_literal(word: &[u8]) -> bool {
    word.len() <= 2 || word.first() == Some(&b'_')
}

/// Behind `'user'@'host'` of `SET PASSWORD FOR`.
fn account(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + blanks(&text[at..]);
    for part in 0..2 {
        at = match *text.get(at)? {
            quote @ (b'\'' | b'"' | b'`') => (quoted(text, at, quote).1 + 1).min(text.len()),
            b'\\' if matches!(text.get(at + 1), Some(b'\'' | b'"')) => (escaped(text, at + 2, text[at + 1]).1 + 2).min(text.len()),
            _ => at + bare(&text[at..]),
        };
        if part == 0 {
            if text.get(at) != Some(&b'@') {
                break;
            }
            at += 1;
        }
    }
    Some(at)
}

fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Length of the word without quotes at the start; `&` of `U&'…'` is one.
fn bare(bytes: &[u8]) -> usize {
    let length = bytes.iter().take_while(|byte| !byte.is_ascii_whitespace() && !b"'\"`,;()=:@\\&".contains(byte)).count();
    length.max(usize::from(bytes.first() == Some(&b'&')))
}

/// Inside of the literal that opens at `open`; up to the end when it was cut.
fn quoted(text: &[u8], open: usize, quote: u8) -> (usize, usize) {
    let start = open + 1;
    let mut at = start;
    while let Some(next) = memchr::memchr2(quote, b'\\', &text[at..]) {
        at += next;
        if text[at] == b'\\' {
            at = (at + 2).min(text.len());
        } else if text.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return (start, at);
        }
    }
    (start, text.len())
}

/// Inside of a literal whose quotes are themselves escaped (`\'x\'`), as in JSON or MariaDB's audit log.
fn escaped(text: &[u8], start: usize, quote: u8) -> (usize, usize) {
    let mut at = start;
    while let Some(next) = memchr::memchr(b'\\', &text[at..]) {
        at += next;
        match text.get(at + 1) {
            Some(byte) if *byte == quote => return (start, at),
            Some(b'\\') => at = (at + 4).min(text.len()),
            _ => at = (at + 2).min(text.len()),
        }
    }
    (start, text.len())
}

/// Inside of `$tag$…$tag$`; a parameter such as `$1` is no literal.
fn dollar(text: &[u8], open: usize) -> Option<(usize, usize)> {
    let tag = text[open + 1..].iter().take(64).position(|byte| *byte == b'$')? + 1;
    if text[open + 1..open + tag].iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') {
        return None;
    }
    let start = open + tag + 1;
    let mark = &text[open..start];
    let end = memchr::memmem::find(&text[start..], mark).map_or(text.len(), |at| start + at);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_word_is_seen_wherever_it_stands() {
        for (word, _) in LEADS {
            for at in (0..40).chain(PIECE - 40..PIECE + 40).chain(2 * PIECE - 60..2 * PIECE + 20) {
                let text = format!("{}{}{}", "x".repeat(at), word.to_uppercase(), " y".repeat(300));
                assert!(is_suspect(text.as_bytes()), "{word} at {at}");
                assert_eq!(
                    is_suspect(&text.as_bytes()[..at + word.len() - 1]),
                    FINDER.is_match(&text.as_bytes()[..at + word.len() - 1]),
                    "{word} cut at {at}"
                );
            }
        }
    }

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        redact(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_engine() {
        for (text, expected) in [
            ("CREATE ROLE app LOGIN PASSWORD 'hunter2' SUPERUSER", "CREATE ROLE app LOGIN PASSWORD '<redacted>' SUPERUSER"),
            ("alter role a encrypted password E'it''s\\'x' valid until 'x'", "alter role a encrypted password E'<redacted>' valid until 'x'"),
            ("ALTER ROLE a PASSWORD $x$se'cret$x$;", "ALTER ROLE a PASSWORD $x$<redacted>$x$;"),
            ("CREATE USER u WITH PASSWORD 'cut off her", "CREATE USER u WITH PASSWORD '<redacted>"),
            ("CREATE USER 'a'@'%' IDENTIFIED BY 'pw' REQUIRE SSL", "CREATE USER 'a'@'%' IDENTIFIED BY '<redacted>' REQUIRE SSL"),
            ("CREATE USER a IDENTIFIED WITH mysql_native_password BY 'pw'", "CREATE USER a IDENTIFIED WITH mysql_native_password BY '<redacted>'"),
            ("ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD('pw')", "ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD('<redacted>')"),
            ("CREATE USER a IDENTIFIED BY PASSWORD '*ABC'", "CREATE USER a IDENTIFIED BY PASSWORD '<redacted>'"),
            ("SET PASSWORD FOR 'a'@'%' = PASSWORD('pw')", "SET PASSWORD FOR 'a'@'%' = PASSWORD('<redacted>')"),
            ("SET PASSWORD FOR 'a'@'%' = 'pw'", "SET PASSWORD FOR 'a'@'%' = '<redacted>'"),
            ("SET PASSWORD = 'pw'", "SET PASSWORD = '<redacted>'"),
            (
                "CHANGE MASTER TO MASTER_USER='r', MASTER_PASSWORD='pw', MASTER_PORT=1",
                "CHANGE MASTER TO MASTER_USER='r', MASTER_PASSWORD='<redacted>', MASTER_PORT=1",
            ),
            ("CREATE LOGIN l WITH PASSWORD = N'pw' MUST_CHANGE", "CREATE LOGIN l WITH PASSWORD = N'<redacted>' MUST_CHANGE"),
            ("CREATE LOGIN l WITH PASSWORD = 0x0200AB HASHED", "CREATE LOGIN l WITH PASSWORD = <redacted> HASHED"),
            ("dblink('host=h user=u password=pw dbname=d')", "dblink('host=h user=u password=<redacted> dbname=d')"),
            ("CREATE USER MAPPING FOR u OPTIONS (user 'x', password 'pw')", "CREATE USER MAPPING FOR u OPTIONS (user 'x', password '<redacted>')"),
            ("COPY t FROM 's3://b' CREDENTIALS 'aws_access_key_id=A;aws_secret_access_key=B'", "COPY t FROM 's3://b' CREDENTIALS '<redacted>'"),
            (
                "COPY t FROM 's3://b' ACCESS_KEY_ID 'A' SECRET_ACCESS_KEY 'B'",
                "COPY t FROM 's3://b' ACCESS_KEY_ID '<redacted>' SECRET_ACCESS_KEY '<redacted>'",
            ),
            (r"'CREATE USER \'a\' IDENTIFIED BY \'p\\\'w\'',0", r"'CREATE USER \'a\' IDENTIFIED BY \'<redacted>\'',0"),
            (r#"{"createUser":"a","pwd":"pw","roles":[]}"#, r#"{"createUser":"a","pwd":"<redacted>","roles":[]}"#),
            (r#"{\"pwd\":\"pw\"}"#, r#"{\"pwd\":\"<redacted>\"}"#),
        ] {
            check(text, expected);
            check(expected, expected);
        }
    }

    #[test]
    fn left_alone() {
        for text in [
            "SELECT password FROM users WHERE name = 'x'",
            "SHOW password_encryption",
            "ALTER ROLE a PASSWORD NULL",
            "CREATE USER a IDENTIFIED BY *****",
            "CREATE ROLE a LOGIN PASSWORD <REDACTED>",
            "Access denied for user 'app'@'localhost' (using password: YES)",
            "password authentication failed for user \"app\"",
            "PREPARE x AS SELECT $1",
        ] {
            check(text, text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"(?s)((password|identified by|secret|'|"|\\|\$|=|\(|[a-z ]|.){0,40})"#) {
            redact(text.as_bytes(), &mut Vec::new());
        }

        #[test]
        fn the_literal_is_gone(secret in "[a-zA-Z0-9!#%&+;,. ]{4,20}", cut in any::<bool>()) {
            for lead in ["PASSWORD ", "IDENTIFIED BY ", "PASSWORD = ", "SET PASSWORD FOR 'a'@'b' = "] {
                let text = format!("ALTER {lead}'{secret}{}", if cut { "" } else { "' x" });
                let mut out = Vec::new();
                redact(text.as_bytes(), &mut out);
                prop_assert!(memchr::memmem::find(&out, secret.as_bytes()).is_none());
            }
        }
    }
}
