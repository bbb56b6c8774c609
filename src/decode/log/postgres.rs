//! PostgreSQL's log as RDS and Aurora write it: lines in, one event per message out.
//!
//! In: lines with one of the two prefixes that RDS permits, `%t:%r:%u@%d:[%p]:` or
//! `%m:%r:%u@%d:[%p]:%l:%e:%s:%v:%x:%c:%q%a` (backend/utils/error/elog.c writes them). Out: messages with their DETAIL, HINT,
//! CONTEXT and STATEMENT joined. Invariant: the prefix is read as its writer could have meant it, never as a client could
//! have forged it; where both are possible the event is `log_forgery`.

mod memory;
mod message;
mod names;
mod pgaudit;
mod prefix;
mod split;

use std::{collections::HashMap, hash::BuildHasher as _};

use foldhash::fast::RandomState;

use self::{
    memory::Memory,
    split::{Entry, Standing},
};
use super::{LogEvent, LogFields, Sink};
use crate::decode::log::tax::Tax;

/// No further entry in the chain.
const NONE: u32 = u32::MAX;

/// Whether a line begins with one of the two prefixes' unforgeable parts.
pub(super) fn begins(line: &[u8]) -> bool {
    prefix::start(line, 0).is_some()
}

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    entries: Vec<Entry>,
    /// Process id to its last message, and the last entry that hangs on that.
    primaries: HashMap<u32, (u32, u32), RandomState>,
    /// Hash of a client's address and port to the process that serves it, from `connection received`.
    peers: HashMap<u64, u32, RandomState>,
    unfolded: Vec<u8>,
    memory: Memory,
}

impl Scratch {
    pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>) {
        let text = sink.batch.text;
        split::split(text, &mut self.entries);
        self.link(text);
        let mut before = if sink.batch.stream == 0 { None } else { self.memory.take(sink.batch.stream, sink.batch.now_ms) };
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            if entry.linked {
                continue;
            }
            let raw = &text[entry.start as usize..entry.end as usize];
            if raw.iter().all(u8::is_ascii_whitespace) {
                sink.skip(raw.len());
                continue;
            }
            fields.begin_event();
            fields.put(Tax::Engine, b"postgresql");
            match entry.standing {
                Standing::Plain | Standing::Forged => {
                    message::fill(text, &self.entries, index, fields, &mut self.unfolded);
                    if !entry.severity.is_secondary() {
                        before = None;
                    } else if let Some(last) = before.as_ref().filter(|last| last.pid == entry.pid) {
                        message::belated(last.severity, &last.body, fields);
                    }
                }
                Standing::Doubtful => {
                    fields.put(Tax::Event, b"log_forgery");
                    fields.put(Tax::Forged, b"true");
                    super::statement::put_redacted(fields, Tax::Message, raw);
                }
                Standing::Loose => {
                    fields.put(Tax::Event, b"detail");
                    super::statement::put_redacted(fields, Tax::Message, raw);
                }
            }
            sink.emit(fields, "postgresql", entry.start as usize, entry.end as usize, entry.time_ms().into());
        }
        self.remember(sink);
    }

    /// Keeps the batch's last message for a detail that may open the next batch.
    fn remember<F: FnMut(&LogEvent<'_>)>(&mut self, sink: &mut Sink<'_, F>) {
        let batch = sink.batch;
        let Some(last) = self.entries.iter().rev().find(|entry| !entry.linked) else { return };
        if batch.stream == 0 || last.severity.is_secondary() || matches!(last.standing, Standing::Doubtful | Standing::Loose) {
            return;
        }
        let body = &batch.text[last.body as usize..(last.end as usize).max(last.body as usize)];
        sink.outcome.forgotten += u64::from(!self.memory.put(batch.stream, batch.now_ms, last.pid, last.severity, body));
    }

    /// Whether the line's process is the one that the client's connection was given to, as far as this batch shows it. A client
    /// can write a process id into its name, but neither its own address nor the id that the server chose.
    fn is_served_by(&mut self, text: &[u8], entry: &Entry) -> bool {
        let remote = &text[entry.remote.0 as usize..entry.remote.1 as usize];
        if remote.is_empty() || remote == b"[local]" {
            return true;
        }
        let peer = self.peers.hasher().hash_one(remote);
        if entry.standing == Standing::Plain && text[entry.body as usize..].starts_with(b"connection received: ") {
            self.peers.insert(peer, entry.pid);
            return true;
        }
        self.peers.get(&peer).is_none_or(|pid| *pid == entry.pid)
    }

    /// Hangs each DETAIL, HINT, … on the last message of the same process.
    fn link(&mut self, text: &[u8]) {
        self.primaries.clear();
        self.peers.clear();
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            if matches!(entry.standing, Standing::Doubtful | Standing::Loose) {
                continue;
            }
            if !self.is_served_by(text, &entry) {
                self.entries[index].standing = Standing::Doubtful;
                continue;
            }
            let index = index as u32;
            if !entry.severity.is_secondary() {
                self.primaries.insert(entry.pid, (index, index));
                continue;
            }
            let Some((primary, last)) = self.primaries.get_mut(&entry.pid) else { continue };
            self.entries[*last as usize].next = index;
            *last = index;
            let (primary, index) = (*primary as usize, index as usize);
            self.entries[index].linked = true;
            if entry.standing == Standing::Forged {
                self.entries[primary].standing = Standing::Forged;
            }
        }
    }
}

#[cfg(test)]
mod tests;
