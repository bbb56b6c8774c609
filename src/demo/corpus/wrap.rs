//! Events in the wrappings that carry them: lines, CloudTrail's S3 files, CloudWatch Logs envelopes.
//!
//! In: events, from the corpus or a story. Out: bytes as a consumer gets them. Invariant: one file or envelope is in memory at
//! a time.

use std::{
    io::{self, Write},
    ops::RangeInclusive,
};

use libdeflater::{CompressionLvl, Compressor};

use super::{ACCOUNTS, Corpus};

/// Writes `events` lines.
pub fn ndjson(corpus: &mut Corpus, events: u64, out: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::with_capacity(8 << 10);
    for _ in 0..events {
        line.clear();
        corpus.next_event(&mut line);
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// One S3 file of `events` events, compressed: `{"Records":[…]}`.
pub fn s3_file(corpus: &mut Corpus, events: u64, gzip: &mut Gzip) -> Vec<u8> {
    let mut plain = br#"{"Records":["#.to_vec();
    for at in 0..events {
        if at > 0 {
            plain.push(b',');
        }
        corpus.next_event(&mut plain);
    }
    plain.extend_from_slice(b"]}");
    let mut out = Vec::new();
    gzip.append(&plain, &mut out);
    out
}

/// gzip at level 6, as the services do it.
pub struct Gzip(Compressor);

impl Default for Gzip {
    fn default() -> Self {
        Self(Compressor::new(CompressionLvl::default()))
    }
}

impl Gzip {
    /// Appends one member.
    pub fn append(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.0.gzip_compress_bound(plain.len()), 0);
        let len = self.0.gzip_compress(plain, &mut out[start..]).expect("the bound is large enough");
        out.truncate(start + len);
    }
}

/// One CloudWatch Logs subscription record in the making.
#[derive(Default)]
pub struct Envelope {
    plain: Vec<u8>,
    events: u32,
    /// Part of each log event's id.
    serial: u64,
    gzip: Gzip,
}

impl Envelope {
    pub fn events(&self) -> u32 {
        self.events
    }

    /// Bytes before compression so far.
    pub fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Adds one event that happened at `time_ms`.
    pub fn push(&mut self, time_ms: i64, message: &[u8]) {
        let account = ACCOUNTS[0];
        if self.events == 0 {
            self.text(format_args!(
                r#"{{"messageType":"DATA_MESSAGE","owner":"{account}","logGroup":"aws-cloudtrail-logs-estate","logStream":"{account}_CloudTrail_eu-west-1_{}","subscriptionFilters":["trailwarden"],"logEvents":["#,
                1 + self.serial % 4
            ));
        } else {
            self.plain.push(b',');
        }
        self.serial += 1;
        let serial = self.serial;
        // 56 digits that sort by time, as the service's ids do.
        self.text(format_args!(r#"{{"id":"{:032}{serial:024}","timestamp":{time_ms},"message":""#, u128::from(time_ms.unsigned_abs()) << 25));
        escape(message, &mut self.plain);
        self.plain.extend_from_slice(b"\"}");
        self.events += 1;
    }

    /// Appends the record, compressed, and begins anew. Nothing where nothing was pushed.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.events == 0 {
            return;
        }
        self.plain.extend_from_slice(b"]}");
        self.gzip.append(&self.plain, out);
        self.plain.clear();
        self.events = 0;
    }

    fn text(&mut self, parts: std::fmt::Arguments<'_>) {
        self.plain.write_fmt(parts).expect("a vector takes all");
    }
}

/// Text as the inside of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'"', b'\\', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            _ => b"\\n",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Records of the corpus, each with a few dozen events.
pub struct Envelopes {
    corpus: Corpus,
    sizes: RangeInclusive<u32>,
    envelope: Envelope,
    event: Vec<u8>,
}

impl Envelopes {
    /// 50 to 200 events a record.
    pub fn new(corpus: Corpus) -> Self {
        Self { corpus, sizes: 50..=200, envelope: Envelope::default(), event: Vec::new() }
    }

    /// Other sizes.
    pub fn with_sizes(mut self, sizes: RangeInclusive<u32>) -> Self {
        self.sizes = sizes;
        self
    }

    /// Appends one gzip record; returns how many events it holds.
    pub fn next_record(&mut self, out: &mut Vec<u8>) -> u32 {
        let spread = (self.sizes.end() - self.sizes.start() + 1) as usize;
        let events = self.sizes.start() + self.corpus.random.below(spread) as u32;
        for _ in 0..events {
            self.event.clear();
            let time_ms = self.corpus.next_event(&mut self.event);
            self.envelope.push(time_ms, &self.event);
        }
        self.envelope.finish(out);
        events
    }
}
