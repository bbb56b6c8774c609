//! Secrets taken out of text before it is kept or sent.
//!
//! In: summaries, group values, names from events. Out: the same text with `[redacted]` where a secret stood. Invariant: a
//! secret access key, session token, password, private key or bearer token in one of the shapes below never passes.

use std::{borrow::Cow, sync::LazyLock};

use aho_corasick::AhoCorasick;
use regex::{Captures, Regex, RegexSet};

const MARK: &str = "[redacted]";

/// What stands before the secret is kept as group 1, what follows as group 2.
const SHAPES: [&str; 9] = [
    // Session tokens: long base64 that begins as the token service's do.
    r"()(?:FwoGZXIvYXdz|FQoGZXIvYXdz|FQoDYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=%]{40,}()",
    // JSON or map members, also inside escaped JSON.
    r#"(?i)(\\?"(?:[a-z_]*password|passwd|pwd|[a-z_]*secret(?:_?access_?key|_?string|_?binary)?|session_?token|auth_?token|api_?key|private_?key|client_?secret)\\?"\s*:\s*\\?")(?:[^"\\]|\\[^"])+()"#,
    // SQL: a literal behind IDENTIFIED BY, PASSWORD or PASSWORD(…).
    r"(?i)\b((?:identified\s+(?:with\s+\S+\s+)?(?:by|as)|(?:encrypted\s+)?password)\s*(?:=|:=|\()?\s*(?:password\s*)?N?)'(?:[^']|'')*'?()",
    // Assignments and query parameters.
    r#"(?i)\b((?:[a-z_-]*password|passwd|pwd|secret(?:_?access_?key)?|(?:x-amz-)?security-token|session_?token|auth_?token|api_?key|x-amz-signature|client_?secret)\s*=\s*['"]?)[^\s'"&;,<>]+()"#,
    // Headers.
    r"(?i)\b(authorization\s*[:=]\s*(?:bearer|basic|aws4-hmac-sha256)\s+)[^\r\n]+()",
    // User information of an address.
    r"\b([a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:)[^\s/@]{1,200}(@)",
    // JSON web tokens.
    r"()\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*()",
    // Private keys.
    r"()-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)()",
    // Tokens of chat and code services.
    r"()\b(?:xox[abprs]-[A-Za-z0-9-]{10,}|gh[pousr]_[A-Za-z0-9]{30,}|hooks\.slack\.com/services/[A-Za-z0-9/]+)()",
];

/// Of each shape, letters that stand in all that it matches, in either case. Most text has none, and is spared the shapes.
const HINTS: [&str; 18] = [
    "fwogzxivyxdz",
    "fqogzxivyxdz",
    "fqodyxdz",
    "iqojb3jpz2lu",
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "key",
    "identified",
    "signature",
    "authorization",
    "://",
    "eyj",
    "xox",
    "gh",
    "hooks.slack.com",
];
static HINTED: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(HINTS).expect("the hints are constant and few"));

static ANY: LazyLock<RegexSet> = LazyLock::new(|| RegexSet::new(SHAPES).expect("the shapes are constant and valid"));
static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| SHAPES.iter().map(|s| Regex::new(s).expect("the shapes are constant and valid")).collect());

/// 40 characters of base64 that stand alone: a secret access key has no other mark.
static KEY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[A-Za-z0-9/+]{40,}").expect("constant and valid"));

fn has_long_run(text: &str) -> bool {
    text.as_bytes().split(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+'))).any(|run| run.len() >= 40)
}

/// `text` without its secrets; borrowed where it has none.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    // Beyond ASCII some letters fold into those of a hint: the shapes know them, the hints don't.
    let hinted = !text.is_ascii() || HINTED.is_match(text);
    for shape in hinted.then(|| ANY.matches(text)).into_iter().flatten() {
        let replaced = EACH[shape].replace_all(&out, |found: &Captures| replacement(found));
        if let Cow::Owned(changed) = replaced {
            out = Cow::Owned(changed);
        }
    }
    if has_long_run(&out) && KEY.find_iter(&out).any(|found| is_secret_key(found.as_str())) {
        let replaced = KEY.replace_all(&out, |found: &Captures| if is_secret_key(&found[0]) { MARK.to_owned() } else { found[0].to_owned() });
        out = Cow::Owned(replaced.into_owned());
    }
    out
}

fn replacement(found: &Captures) -> String {
    let (before, after) = (&found[1], &found[2]);
    let secret = &found[0][before.len()..found[0].len() - after.len()];
    // An earlier shape has been here already; what stands around its mark says more than a second mark.
    let done = secret == MARK || secret.eq_ignore_ascii_case("password([redacted])");
    if done { found[0].to_owned() } else { format!("{before}{MARK}{after}") }
}

/// Exactly 40 characters, cases and digits mixed as random ones are: a hash in hex or a path is none.
fn is_secret_key(run: &str) -> bool {
    let count = |test: fn(&u8) -> bool| run.bytes().filter(test).count();
    run.len() == 40
        && count(u8::is_ascii_uppercase) >= 5
        && count(u8::is_ascii_lowercase) >= 5
        && count(u8::is_ascii_digit) >= 1
        && count(|b| *b == b'/') <= 4
        && !run.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_their_surroundings_stay() {
        for (text, expected) in [
            ("key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY used", "key [redacted] used"),
            (r#"{"masterUserPassword":"hunter2","x":1}"#, r#"{"masterUserPassword":"[redacted]","x":1}"#),
            (r#"{\"secretString\":\"a,b\",\"y\":2}"#, r#"{\"secretString\":\"[redacted]\",\"y\":2}"#),
            ("ALTER USER root IDENTIFIED BY 'it''s me'; SELECT 1", "ALTER USER root IDENTIFIED BY [redacted]; SELECT 1"),
            ("CREATE ROLE a PASSWORD 'x y' LOGIN", "CREATE ROLE a PASSWORD [redacted] LOGIN"),
            ("SET PASSWORD = PASSWORD('abc')", "SET PASSWORD = PASSWORD([redacted])"),
            ("postgres://app:s3cr3t@db.internal/x", "postgres://app:[redacted]@db.internal/x"),
            ("GET /?X-Amz-Security-Token=abc%2F&X=1", "GET /?X-Amz-Security-Token=[redacted]&X=1"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("password=hunter2, then", "password=[redacted], then"),
            ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln end", "t [redacted] end"),
        ] {
            assert_eq!(redact(text), expected);
        }
        let token = format!("IQoJb3JpZ2lu{}", "aB3/".repeat(50));
        assert_eq!(redact(&format!("token {token} end")), "token [redacted] end");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "AKIAIOSFODNN7EXAMPLE read secret arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/db-AbCdEf",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "arn:aws:iam::111122223333:role/aws-service-role/backup.amazonaws.com/AWSServiceRoleForBackup",
            "rotated the password of db-1",
            "https://example.com/a:b@c",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
