//! The last message of each log stream, for a detail that comes in the next record.
//!
//! In: the end of one batch, the beginning of the next one of the same stream. Out: the message that a lone DETAIL or
//! STATEMENT belongs to. Invariant: bounded in streams, bytes and time; a server writes a message and its details in one
//! piece, so only the last message of a batch can be missing some.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::prefix::Severity;

/// Streams that are remembered.
const MOST_STREAMS: usize = 4096;
/// Bytes of a message that are kept.
const MOST_BYTES: usize = 1024;
/// How long a message waits for its detail, in milliseconds of arrival.
const WAIT_MS: i64 = 60_000;

/// The message before a record's end.
#[derive(Debug)]
pub(super) struct Last {
    pub pid: u32,
    pub severity: Severity,
    pub body: Vec<u8>,
    until_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    streams: HashMap<u64, Last, RandomState>,
}

impl Memory {
    /// Takes what the stream's last batch ended with, if it is young enough.
    pub(super) fn take(&mut self, stream: u64, now_ms: i64) -> Option<Last> {
        self.streams.remove(&stream).filter(|last| last.until_ms >= now_ms)
    }

    /// Remembers how the batch ended; whether there was room. One small allocation a batch.
    pub(super) fn put(&mut self, stream: u64, now_ms: i64, pid: u32, severity: Severity, body: &[u8]) -> bool {
        if self.streams.len() >= MOST_STREAMS {
            self.streams.retain(|_, last| last.until_ms >= now_ms);
            if self.streams.len() >= MOST_STREAMS {
                return false;
            }
        }
        let body = body[..body.len().min(MOST_BYTES)].to_vec();
        self.streams.insert(stream, Last { pid, severity, body, until_ms: now_ms.saturating_add(WAIT_MS) });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_a_while_and_within_bounds() {
        let mut memory = Memory::default();
        assert!(memory.put(1, 0, 7, Severity::Fatal, b"no"));
        assert_eq!(memory.take(1, WAIT_MS).map(|last| last.pid), Some(7));
        assert!(memory.take(1, 0).is_none());
        memory.put(1, 0, 7, Severity::Fatal, b"no");
        assert!(memory.take(1, WAIT_MS + 1).is_none());
        for stream in 0..MOST_STREAMS as u64 {
            assert!(memory.put(stream, 0, 7, Severity::Fatal, b"no"));
        }
        assert!(!memory.put(u64::MAX, 0, 7, Severity::Fatal, b"no"));
        assert!(memory.put(u64::MAX, WAIT_MS + 1, 7, Severity::Fatal, b"no"));
    }
}
