//! The general query log of MySQL and MariaDB.
//!
//! In: `time TAB id command TAB argument`, where the time is left out while the second stays the same, and statements span
//! lines unescaped. Out: one event a command. Invariant: a connection's name that runs over its line is flagged; statements
//! can imitate whatever they like, so this log is no evidence (docs/fields.md).

use super::super::{
    LogEvent, LogFields, Sink, When,
    scan::{self, cut_last},
    statement::{self, put_redacted},
    tax::Tax,
};

/// Longest name that may have run over its line, in bytes.
const REACH: usize = 600;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    id: (u32, u32),
    command: (u32, u32),
    argument: u32,
    when: When,
    is_mysql: bool,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Plain,
    Doubtful,
    /// The banner at the beginning of a file.
    Banner,
}

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(in crate::decode::log) struct Scratch {
    entries: Vec<Entry>,
}

const COMMANDS: &[&[u8]] = &[
    b"Query",
    b"Execute",
    b"Connect",
    b"Quit",
    b"Prepare",
    b"Close stmt",
    b"Init DB",
    b"Field List",
    b"Statistics",
    b"Change user",
    b"Refresh",
    b"Shutdown",
    b"Kill",
    b"Ping",
    b"Binlog Dump",
    b"Binlog Dump GTID",
    b"Reset stmt",
    b"Reset Connection",
    b"Debug",
    b"Daemon",
    b"Sleep",
    b"Table Dump",
    b"Connect Out",
    b"Register Slave",
    b"Register Replica",
    b"Set option",
    b"Fetch",
    b"Create DB",
    b"Drop DB",
    b"Processlist",
    b"Time",
    b"Delayed insert",
    b"Error",
    b"Long Data",
    b"Bulk_execute",
];

impl Scratch {
    pub(in crate::decode::log) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        self.split(text);
        for entry in &self.entries {
            let raw = &text[entry.start as usize..entry.end as usize];
            if entry.standing == Standing::Banner || raw.iter().all(u8::is_ascii_whitespace) {
                sink.skip(raw.len());
                continue;
            }
            fields.begin_event();
            let product = if entry.is_mysql { "mysql" } else { "mariadb" };
            fields.put(Tax::Engine, product.as_bytes());
            if entry.standing == Standing::Doubtful {
                fields.put(Tax::Event, b"log_forgery");
                fields.put(Tax::Forged, b"true");
                put_redacted(fields, Tax::Message, raw);
            } else {
                fields.put(Tax::SessionPid, &text[entry.id.0 as usize..entry.id.1 as usize]);
                let command = &text[entry.command.0 as usize..entry.command.1 as usize];
                fill(command, &text[(entry.argument as usize).min(entry.end as usize)..entry.end as usize], fields);
            }
            sink.emit(fields, product, entry.start as usize, entry.end as usize, entry.when);
        }
    }

    fn split(&mut self, text: &[u8]) {
        self.entries.clear();
        let mut when = When::Unknown;
        let mut at = 0;
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            let end = (at + line.len()) as u32;
            match start(text, at, line) {
                Some(mut entry) => {
                    if entry.when == When::Unknown {
                        entry.when = when;
                    }
                    when = entry.when;
                    self.entries.push(entry);
                }
                None => self.push_rest(at, end, line),
            }
            at = next;
        }
        self.doubt_broken_names(text);
    }

    fn push_rest(&mut self, at: usize, end: u32, line: &[u8]) {
        match self.entries.last_mut() {
            Some(last) => last.end = end,
            None => self.entries.push(Entry {
                start: at as u32,
                end,
                id: (0, 0),
                command: (0, 0),
                argument: at as u32,
                when: When::Unknown,
                is_mysql: false,
                standing: if is_name_end(line) { Standing::Doubtful } else { Standing::Banner },
            }),
        }
    }

    /// A name with a newline spoils what follows within its reach: its own line has no end, or another one has its end.
    fn doubt_broken_names(&mut self, text: &[u8]) {
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            let body = &text[(entry.argument as usize).min(entry.end as usize)..entry.end as usize];
            let is_connect = matches!(&text[entry.command.0 as usize..entry.command.1 as usize], b"Connect" | b"Change user");
            let last_line = body.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let has_tail = memchr::memchr(b'\n', body).is_some() && is_name_end(last_line);
            if has_tail && !is_connect {
                let tail = entry.end as usize;
                for earlier in self.entries[..=index].iter_mut().rev().take_while(|earlier| tail - earlier.start as usize <= REACH) {
                    earlier.standing = Standing::Doubtful;
                }
            } else if is_connect && !body.is_empty() && !is_name_end(body) {
                self.entries[index].standing = Standing::Doubtful;
                let from = entry.end as usize;
                for later in self.entries[index + 1..].iter_mut().take_while(|later| later.start as usize - from <= REACH).take(1) {
                    let later_body = &text[(later.argument as usize).min(later.end as usize)..later.end as usize];
                    if is_name_end(later_body) && later.command.0 != 0 && &text[later.command.0 as usize..later.command.1 as usize] != b"Connect" {
                        later.standing = Standing::Doubtful;
                    }
                }
            }
        }
    }
}

/// The end of a Connect line.
fn is_name_end(line: &[u8]) -> bool {
    let Some((head, way)) = cut_last(line, b" using ") else {
        return cut_last(line, b"'@'").is_some_and(|(_, behind)| behind.ends_with(b"'") || behind.ends_with(b")"));
    };
    [&b"TCP/IP"[..], b"SSL/TLS", b"Socket", b"Named Pipe", b"Shared Memory", b"Unknown"].contains(&way)
        && memchr::memmem::find(head, b" on ").is_some()
        || way.starts_with(b"password: ")
}

/// Time, id and command at the start of a line.
fn start(text: &[u8], at: usize, line: &[u8]) -> Option<Entry> {
    let (when, len, is_mysql) = if line.starts_with(b"\t\t") {
        (When::Unknown, 1, false)
    } else if let Some(stamp) = scan::date_time(line) {
        let zone = line[stamp.len..].iter().take(8).position(|byte| *byte == b'\t')?;
        (When::At(stamp.ms - scan::zone_ms(&line[stamp.len..stamp.len + zone]).unwrap_or_default()), stamp.len + zone, true)
    } else {
        let stamp = scan::compact_date_time(line)?;
        (When::Zoneless(stamp.ms), stamp.len, false)
    };
    let rest = line.get(len..)?.strip_prefix(b"\t")?;
    let blanks = rest.iter().take(12).take_while(|byte| **byte == b' ').count();
    let id = scan::digits(&rest[blanks..]);
    let behind = rest[blanks + id..].strip_prefix(b" ").filter(|_| id > 0)?;
    let word = memchr::memchr(b'\t', &behind[..behind.len().min(24)]).unwrap_or(behind.len());
    if !COMMANDS.contains(&behind.get(..word)?) {
        return None;
    }
    let id_at = at + len + 1 + blanks;
    let command = id_at + id + 1;
    let end = (at + line.len()) as u32;
    debug_assert!(end as usize <= text.len());
    Some(Entry {
        start: at as u32,
        end,
        id: (id_at as u32, (id_at + id) as u32),
        command: (command as u32, (command + word) as u32),
        argument: (command + word + 1) as u32,
        when,
        is_mysql,
        standing: Standing::Plain,
    })
}

fn fill(command: &[u8], argument: &[u8], fields: &mut LogFields) {
    let event = match command {
        b"Query" | b"Execute" => {
            let event = statement::put(fields, argument);
            fields.put(Tax::Event, event.as_bytes());
            return;
        }
        b"Prepare" => {
            put_redacted(fields, Tax::Statement, argument);
            "other"
        }
        b"Connect" | b"Change user" => match argument.strip_prefix(b"Access denied for user '") {
            Some(quoted) => {
                super::error::denied(quoted, fields);
                fields.put(Tax::Outcome, b"failure");
                "login_failed"
            }
            None => connect(argument, fields),
        },
        b"Quit" => "logout",
        b"Kill" => "killed",
        b"Shutdown" => "shutdown",
        b"Init DB" => {
            fields.put(Tax::Name, argument);
            "other"
        }
        _ => "other",
    };
    fields.put(Tax::Event, event.as_bytes());
    fields.put(Tax::Command, command);
    put_redacted(fields, Tax::Message, argument);
}

/// `U@H on D using W`: written before the password is checked, so it proves nothing.
fn connect(argument: &[u8], fields: &mut LogFields) -> &'static str {
    let (head, way) = cut_last(argument, b" using ").unwrap_or((argument, b""));
    if way == b"SSL/TLS" {
        fields.put(Tax::Tls, b"true");
    } else if way == b"TCP/IP" {
        fields.put(Tax::Tls, b"false");
    }
    let (account, database) = cut_last(head, b" on ").unwrap_or((head, b""));
    if memchr::memchr(b'\n', account).is_some() || memchr::memmem::find(account, b" on ").is_some() {
        fields.put(Tax::Forged, b"true");
    }
    let (user, host) = cut_last(account, b"@").unwrap_or((account, b""));
    fields.put(Tax::User, user);
    fields.put(Tax::ClientAddress, host);
    fields.put(Tax::Name, database);
    "connection"
}
