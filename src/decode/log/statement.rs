//! What a statement does, told from its words: one classification for every SQL engine.
//!
//! In: statement text, perhaps cut, perhaps several statements. Out: event, class, command, object. Invariant: of several
//! statements the gravest one counts, and comments, also MySQL's executable ones, can't hide a keyword. Linear time.

mod words;

use words::{Words, comment};

use super::{fields::LogFields, tax::Tax};
use crate::redact;

/// Longest command that is put together, such as `ALTER DEFAULT PRIVILEGES`.
const MOST_COMMAND: usize = 48;
/// Statements of one text that are looked at; the rest is a batch load.
const MOST_STATEMENTS: usize = 64;

/// Ranked by gravity: of several statements in one text, the greatest one is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Misc,
    Set,
    Read,
    Function,
    Write,
    Ddl,
    Config,
    Account,
    Grant,
    Program,
    Audit,
}

/// A classified statement.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    kind: Kind,
    command: [u8; MOST_COMMAND],
    command_len: u8,
    pub object: &'a [u8],
    pub object_type: &'a [u8],
}

impl Statement<'_> {
    /// The word of `db.event`.
    pub fn event(&self) -> &'static str {
        match self.kind {
            Kind::Audit => "audit_change",
            Kind::Grant => "grant",
            Kind::Account => "account_change",
            Kind::Config => "config_change",
            Kind::Ddl => "ddl",
            _ => "query",
        }
    }

    /// The word of `db.statement.class`.
    pub fn class(&self) -> &'static str {
        match self.kind {
            Kind::Grant | Kind::Account => "ROLE",
            Kind::Ddl | Kind::Config => "DDL",
            Kind::Write => "WRITE",
            Kind::Read | Kind::Program => "READ",
            Kind::Function => "FUNCTION",
            Kind::Set => "MISC_SET",
            Kind::Audit | Kind::Misc => "MISC",
        }
    }

    /// The command in capitals.
    pub fn command(&self) -> &[u8] {
        &self.command[..usize::from(self.command_len)]
    }
}

/// Sets `db.statement` with secrets masked.
pub fn put_redacted(fields: &mut LogFields, tax: Tax, text: &[u8]) {
    if !fields.is_clean(text) && redact::is_suspect(text) {
        fields.put_with(tax, |arena| {
            redact::redact(text, arena);
        });
    } else {
        fields.put(tax, text);
    }
}

/// Sets statement, class, command and object; returns the word of `db.event`.
pub fn put(fields: &mut LogFields, text: &[u8]) -> &'static str {
    let statement = classify(text);
    put_redacted(fields, Tax::Statement, text);
    fields.put(Tax::StatementClass, statement.class().as_bytes());
    fields.put(Tax::Command, statement.command());
    fields.put(Tax::ObjectType, statement.object_type);
    fields.put(Tax::ObjectName, statement.object);
    statement.event()
}

/// What `text` does; the gravest of its statements.
pub fn classify(text: &[u8]) -> Statement<'_> {
    let Some(mut at) = next_statement(text, 0) else { return one(text) };
    let mut gravest = one(&text[..at]);
    for _ in 0..MOST_STATEMENTS {
        let next = next_statement(text, at);
        let other = one(&text[at..next.unwrap_or(text.len())]);
        if other.kind > gravest.kind {
            gravest = other;
        }
        let Some(next) = next else { break };
        at = next;
    }
    gravest
}

/// Behind the next `;` that isn't quoted or commented out.
fn next_statement(text: &[u8], from: usize) -> Option<usize> {
    // Most texts have no `;` but the last one: one quick look spares them the walk through their quotes.
    let last = memchr::memrchr(b';', text)?;
    if last < from || Words::new(&text[last + 1..]).next().is_none() && memchr::memrchr(b';', &text[..last]).is_none_or(|at| at < from) {
        return None;
    }
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        match byte {
            b';' => return Words::new(&text[at + 1..]).next().is_some().then_some(at + 1),
            b'\'' | b'"' | b'`' => at = skip_quoted(text, at),
            b'$' => at = skip_dollar(text, at),
            b'-' | b'/' => at += comment(&text[at..]).max(1),
            _ => at += 1,
        }
    }
    None
}

fn skip_quoted(text: &[u8], open: usize) -> usize {
    memchr::memchr(text[open], &text[open + 1..]).map_or(text.len(), |end| open + end + 2)
}

fn skip_dollar(text: &[u8], open: usize) -> usize {
    let tag = text[open + 1..].iter().take(64).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count() + 1;
    if text.get(open + tag) != Some(&b'$') {
        return open + 1;
    }
    let start = open + tag + 1;
    memchr::memmem::find(&text[start..], &text[open..start]).map_or(start, |end| start + end + tag + 1)
}

fn is(word: &[u8], any: &[&str]) -> bool {
    any.iter().any(|other| word.eq_ignore_ascii_case(other.as_bytes()))
}

/// Words that may stand between CREATE, ALTER or DROP and the type of object.
const FILLERS: &[&str] = &[
    "or",
    "replace",
    "if",
    "not",
    "exists",
    "temp",
    "temporary",
    "unlogged",
    "unique",
    "global",
    "local",
    "materialized",
    "foreign",
    "trusted",
    "procedural",
    "recursive",
    "aggregate",
    "fulltext",
    "spatial",
    "online",
    "offline",
    "ignore",
    "external",
    "constraint",
    "event_trigger",
    "concurrently",
    "only",
];

/// The first statement of `text`.
fn one(text: &[u8]) -> Statement<'_> {
    let mut words = Words::new(text);
    let mut statement = Statement { kind: Kind::Misc, command: [0; MOST_COMMAND], command_len: 0, object: b"", object_type: b"" };
    let Some(first) = words.next() else { return statement };
    let first = if is(first, &["explain", "prepare"]) && first.len() == 7 { behind_wrapper(&mut words, first) } else { first };
    push(&mut statement, first);
    let mut upper = [0; 12];
    let Some(upper) = upper.get_mut(..first.len()) else { return statement };
    upper.copy_from_slice(first);
    upper.make_ascii_uppercase();
    statement.kind = match &*upper {
        b"SELECT" => select(&mut statement, words),
        b"INSERT" | b"UPDATE" | b"DELETE" | b"REPLACE" | b"MERGE" => write(&mut statement, words),
        b"TABLE" | b"VALUES" | b"SHOW" | b"DESCRIBE" | b"DESC" => Kind::Read,
        b"WITH" => with(words),
        b"LOAD" => Kind::Write,
        b"TRUNCATE" => object(&mut statement, words, Kind::Write),
        b"COPY" => copy(&mut statement, text, words),
        b"UNLOAD" => Kind::Read,
        b"CREATE" | b"ALTER" | b"DROP" | b"RENAME" => change(&mut statement, words),
        b"COMMENT" | b"REINDEX" | b"REFRESH" | b"IMPORT" | b"SECURITY" => Kind::Ddl,
        b"GRANT" | b"REVOKE" | b"REASSIGN" | b"DENY" => Kind::Grant,
        b"SET" | b"RESET" => set(&mut statement, words),
        b"CALL" | b"DO" | b"EXEC" | b"EXECUTE" => call(&mut statement, words),
        b"AUDIT" | b"NOAUDIT" => Kind::Audit,
        b"INSTALL" | b"UNINSTALL" => plugin(&mut statement, words),
        b"FLUSH" | b"PURGE" | b"CHANGE" | b"STOP" | b"SHUTDOWN" => config(&mut statement, words),
        _ => Kind::Misc,
    };
    statement
}

/// The command inside EXPLAIN ANALYZE (which runs it) and PREPARE name AS/FROM.
fn behind_wrapper<'a>(words: &mut Words<'a>, first: &'a [u8]) -> &'a [u8] {
    const INNER: &[&str] =
        &["select", "insert", "update", "delete", "replace", "merge", "with", "table", "values", "create", "drop", "alter", "grant"];
    for word in words.take(12) {
        let word = word.strip_prefix(b"'").or(word.strip_prefix(b"\"")).unwrap_or(word);
        let inner = super::scan::word(word);
        if is(inner, INNER) {
            return inner;
        }
    }
    first
}

fn push(statement: &mut Statement<'_>, word: &[u8]) {
    let mut at = usize::from(statement.command_len);
    if at > 0 && at + 1 + word.len() <= MOST_COMMAND {
        statement.command[at] = b' ';
        at += 1;
    }
    let Some(room) = statement.command.get_mut(at..at + word.len()) else { return };
    room.copy_from_slice(word);
    room.make_ascii_uppercase();
    statement.command_len = (at + word.len()) as u8;
}

/// Takes the object's name behind fillers.
fn object<'a>(statement: &mut Statement<'a>, words: Words<'a>, kind: Kind) -> Kind {
    let mut words = words.skip_while(|word| is(word, FILLERS) || is(word, &["table"]));
    if let Some(name) = words.next() {
        statement.object = name;
    }
    kind
}

fn write<'a>(statement: &mut Statement<'a>, words: Words<'a>) -> Kind {
    let fillers = ["into", "from", "low_priority", "delayed", "high_priority", "ignore", "quick", "only", "overwrite"];
    if let Some(name) = words.take(6).find(|word| !is(word, &fillers)) {
        statement.object = name;
    }
    Kind::Write
}

/// SELECT, with the ways in which it writes files or calls what does.
fn select(statement: &mut Statement<'_>, words: Words<'_>) -> Kind {
    let text = words.rest;
    for at in memchr::memchr2_iter(b'f', b'F', text) {
        let ends = |word: &[u8]| at >= word.len() && text[at - word.len()..at].eq_ignore_ascii_case(word);
        if text[at..].get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"file")) && (ends(b"out") || ends(b"dump")) {
            push(statement, b"INTO OUTFILE");
            break;
        }
    }
    Kind::Read
}

/// `WITH x AS (…) INSERT`: the first writing keyword within reach decides.
fn with(words: Words<'_>) -> Kind {
    if words.take(400).any(|word| is(word, &["insert", "update", "delete", "merge"])) { Kind::Write } else { Kind::Read }
}

/// COPY to or from a file, a program or the client.
fn copy<'a>(statement: &mut Statement<'a>, text: &'a [u8], words: Words<'a>) -> Kind {
    let before = words.rest;
    let mut kind = Kind::Read;
    let mut rest = words;
    if before.trim_ascii_start().first() != Some(&b'(')
        && let Some(name) = rest.next()
    {
        statement.object = name;
    }
    let mut way = None;
    for word in rest {
        if is(word, &["from", "to"]) {
            way = Some(word);
        } else if let Some(way) = way.take()
            && (is(word, &["program", "stdout", "stdin"]) || word.first() == Some(&b'\''))
        {
            push(statement, way);
            kind = if is(way, &["from"]) { Kind::Write } else { Kind::Read };
            if is(word, &["program"]) {
                push(statement, b"PROGRAM");
                kind = Kind::Program;
            } else if word.first() == Some(&b'\'') && !text.is_empty() {
                push(statement, b"FILE");
            }
            break;
        }
    }
    kind
}

/// CREATE, ALTER, DROP, RENAME.
fn change<'a>(statement: &mut Statement<'a>, words: Words<'a>) -> Kind {
    let mut words = words.skip_while(|word| {
        is(word, FILLERS) || word.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"definer")) || word.first() == Some(&b'=')
    });
    let Some(what) = words.next() else { return Kind::Ddl };
    push(statement, what);
    statement.object_type = what;
    if is(what, &["default", "event", "access", "server", "operator", "text", "user", "database", "resource"]) {
        let second = words.next().unwrap_or_default();
        if is(second, &["privileges", "trigger", "method", "role", "audit", "mapping", "class", "family", "search", "scoped", "governor", "link"]) {
            push(statement, second);
        } else if !is(second, FILLERS) {
            statement.object = second;
        }
    }
    if statement.object.is_empty()
        && let Some(name) = words.find(|word| !is(word, FILLERS))
    {
        statement.object = name;
    }
    let command = &statement.command[..usize::from(statement.command_len)];
    if command.ends_with(b" AUDIT") {
        return Kind::Audit;
    }
    if is(what, &["role", "user", "group", "login", "masterkey"]) && !command.ends_with(b"MAPPING") {
        return if words.any(is_audit_parameter) { Kind::Audit } else { Kind::Account };
    }
    if is(what, &["system", "instance"]) {
        let audits = is_audit_parameter(statement.object) || words.any(is_audit_parameter);
        return if audits { Kind::Audit } else { Kind::Config };
    }
    if is(what, &["database"]) && words.any(is_audit_parameter) {
        return Kind::Audit;
    }
    if command == b"ALTER DEFAULT PRIVILEGES" { Kind::Grant } else { Kind::Ddl }
}

/// Parameters that switch or filter the audit or statement logs of some engine.
pub(super) fn is_audit_parameter(word: &[u8]) -> bool {
    let word = word.strip_prefix(b"@@").unwrap_or(word);
    let word = [&b"global."[..], b"session.", b"persist."]
        .iter()
        .find(|scope| word.get(..scope.len()).is_some_and(|start| start.eq_ignore_ascii_case(scope)))
        .map_or(word, |scope| &word[scope.len()..]);
    let word = word.trim_ascii_start();
    let starts = |prefix: &str| word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
    [
        "pgaudit.",
        "server_audit",
        "audit_log",
        "audit_trail",
        "audit_sys_operations",
        "log_statement",
        "log_connections",
        "log_disconnections",
        "general_log",
        "slow_query_log",
        "log_output",
        "log_warnings",
        "log_error_verbosity",
        "log_min_messages",
        "log_min_error_statement",
        "sql_log_off",
        "shared_preload_libraries",
    ]
    .iter()
    .any(|prefix| starts(prefix))
}

/// SET, RESET: a password, a server-wide parameter, the audit, or only the session.
fn set<'a>(statement: &mut Statement<'a>, words: Words<'a>) -> Kind {
    let mut kind = Kind::Set;
    for word in words.take(12) {
        if is(word, &["global", "persist", "persist_only"]) || word.get(..8).is_some_and(|scope| scope.eq_ignore_ascii_case(b"@@global")) {
            kind = Kind::Config;
        } else if is(word, &["session", "local", "all"]) {
            continue;
        } else if is(word, &["password"]) {
            push(statement, b"PASSWORD");
            return Kind::Account;
        } else if is(word, &["role", "default"]) && statement.object.is_empty() {
            if is(word, &["default"]) {
                return Kind::Grant;
            }
            return Kind::Set;
        }
        if is_audit_parameter(word) {
            statement.object = word;
            return Kind::Audit;
        }
        if statement.object.is_empty() && !is(word, &["global", "persist", "persist_only"]) {
            statement.object = word;
        }
    }
    kind
}

/// CALL, DO, EXEC: some procedures change the server.
fn call<'a>(statement: &mut Statement<'a>, words: Words<'a>) -> Kind {
    let Some(name) = words.into_iter().next() else { return Kind::Function };
    let lower = |part: &str| name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part.as_bytes()));
    statement.object = name;
    if lower("xp_cmdshell") {
        Kind::Program
    } else if lower("sp_addlogin") || lower("sp_password") || lower("sp_droplogin") {
        Kind::Account
    } else if lower("sp_addsrvrolemember") || lower("sp_addrolemember") {
        Kind::Grant
    } else if lower("sp_configure") || lower("rds_set_configuration") {
        Kind::Config
    } else {
        Kind::Function
    }
}

/// INSTALL, UNINSTALL PLUGIN/COMPONENT.
fn plugin<'a>(statement: &mut Statement<'a>, mut words: Words<'a>) -> Kind {
    if let Some(what) = words.next() {
        push(statement, what);
        statement.object_type = what;
    }
    let mut audits = false;
    for word in words.take(8) {
        audits |= word.windows(5).any(|part| part.eq_ignore_ascii_case(b"audit"));
        if statement.object.is_empty() && !is(word, FILLERS) {
            statement.object = word;
        }
    }
    if audits { Kind::Audit } else { Kind::Config }
}

/// FLUSH LOGS, PURGE BINARY LOGS, CHANGE MASTER, STOP REPLICA, SHUTDOWN.
fn config<'a>(statement: &mut Statement<'a>, mut words: Words<'a>) -> Kind {
    let Some(what) = words.next() else { return Kind::Config };
    push(statement, what);
    if statement.command().starts_with(b"FLUSH") && is(what, &["tables", "table", "status", "hosts"]) { Kind::Misc } else { Kind::Config }
}

#[cfg(test)]
mod tests;
