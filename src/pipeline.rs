//! The worker's loop, and the only place where the parts meet.
//!
//! In: bytes from a source. Out: batches of owned findings for the keeper. Invariant: every record that went in is counted once, as
//! matched, unmatched, duplicate, left out or quarantined.

mod capture;
pub mod control;
pub mod daemon;
mod detectors;
mod follow;
mod keeper;
mod keeping;
mod orders;
mod replay;
mod showing;
mod took;
mod unreadable;

pub use detectors::{Detectors, Unfit};
pub use replay::Replay;
pub use took::Took;
pub use unreadable::Unreadable;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::correlate::Inputs;
use crate::decode::log::FlowFormat;
use crate::decode::{Decoder, Defect, Item, LeftOut, Reason};
use crate::detect::{Outcome, Scratch};
use crate::event::Event;
use crate::store::keeper::Single;

/// What became of the events of some records. All counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub bytes: u64,
    pub events: u64,
    pub matched: u64,
    pub unmatched: u64,
    /// Events all of whose matches were known already.
    pub duplicate: u64,
    pub quarantined: u64,
    pub control_messages: u64,
    pub digests: u64,
    pub encrypted: u64,
    /// Matched events whose time lies after their arrival by more than `SKEW_MS`; among `matched`.
    pub skewed: u64,
    /// Matched events whose own time is missing or can't be read: that of the envelope or of the arrival stands for it.
    pub undated: u64,
}

/// How far an event's time may lie after its arrival.
const SKEW_MS: i64 = 300_000;

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.events += other.events;
        self.matched += other.matched;
        self.unmatched += other.unmatched;
        self.duplicate += other.duplicate;
        self.quarantined += other.quarantined;
        self.control_messages += other.control_messages;
        self.digests += other.digests;
        self.encrypted += other.encrypted;
        self.skewed += other.skewed;
        self.undated += other.undated;
    }

    /// Everything that was read: the sum that nothing may be missing from.
    pub fn read(&self) -> u64 {
        self.matched + self.unmatched + self.duplicate + self.quarantined
    }

    fn leave(&mut self, left: LeftOut) {
        match left {
            LeftOut::ControlMessage => self.control_messages += 1,
            LeftOut::Digest => self.digests += 1,
            LeftOut::Encrypted => self.encrypted += 1,
        }
    }
}

/// Bytes that could not be understood, owned.
#[derive(Debug, Clone)]
pub struct Quarantined {
    pub reason: Reason,
    /// Offset in the record, or in what it inflates to.
    pub at: usize,
    /// The first `KEPT_BYTES`.
    pub bytes: Vec<u8>,
}

/// What is kept of a quarantined record.
pub const KEPT_BYTES: usize = 256 << 10;

/// What a worker found since it was last emptied.
#[derive(Debug, Default)]
pub struct Batch {
    /// Matches that feed correlations, and the event of each.
    pub inputs: Inputs,
    pub input_events: Vec<u32>,
    /// Findings of single events, each with its event.
    pub singles: Vec<(u32, Single)>,
    pub quarantined: Vec<Quarantined>,
    pub tally: Tally,
    /// Per rule, in the detectors' order; shorter where the last ones matched nothing.
    pub rule_matches: Vec<u64>,
    /// What rules cost, estimated; by their index. Filled by `Worker::take`.
    pub rule_costs: Vec<(u32, Duration)>,
    /// What its records took. Filled by `Worker::take`.
    pub took: Took,
    /// When the first record arrived that something was found in; milliseconds since the epoch.
    pub found_arrival_ms: Option<i64>,
    /// The newest event that matched; milliseconds since the epoch.
    pub newest_ms: i64,
}

/// The part of a batch that takes an event's matches.
struct Found<'b> {
    /// Numbers the batch's events.
    event: u32,
    inputs: &'b mut Inputs,
    input_events: &'b mut Vec<u32>,
    singles: &'b mut Vec<(u32, Single)>,
    newest_ms: &'b mut i64,
    rule_matches: &'b mut Vec<u64>,
    /// Of this event: the latest of its matches' times.
    time_ms: i64,
    /// Its own time is missing or can't be read.
    undated: bool,
}

impl Batch {
    pub fn has_found(&self) -> bool {
        !self.inputs.is_empty() || !self.singles.is_empty()
    }

    pub fn clear(&mut self) {
        self.inputs.clear();
        self.input_events.clear();
        self.singles.clear();
        self.newest_ms = 0;
        self.rule_matches.clear();
        self.rule_costs.clear();
        self.found_arrival_ms = None;
        self.quarantined.clear();
        self.tally = Tally::default();
    }

    fn quarantine(&mut self, reason: Reason, at: usize, bytes: &[u8]) {
        self.tally.quarantined += 1;
        self.quarantined.push(Quarantined { reason, at, bytes: bytes[..bytes.len().min(KEPT_BYTES)].to_vec() });
    }
}

/// Decodes and matches; one for each core.
pub struct Worker {
    rules: Arc<Detectors>,
    decoder: Decoder,
    matcher: Matcher,
    pub batch: Batch,
}

/// What the loop over events needs besides the decoder, which it borrows from.
struct Matcher {
    scratch: Scratch,
    /// Equal events without an id of their own are told apart by how often they were seen in this stream.
    occurrences: HashMap<[u8; 16], u32>,
    stopwatch: took::Stopwatch,
}

/// Equal events without an id that are told apart, per stream; more count as new ones from the start again.
const OCCURRENCES: usize = 100_000;

impl Worker {
    pub fn new(rules: Arc<Detectors>) -> Self {
        let matcher = Matcher { scratch: Scratch::default(), occurrences: HashMap::new(), stopwatch: took::Stopwatch::default() };
        Self { rules, decoder: Decoder::default(), matcher, batch: Batch::default() }
    }

    /// VPC flow logs have this format.
    pub fn with_flow_format(mut self, format: Option<FlowFormat>) -> Self {
        self.decoder.set_flow_format(format);
        self
    }

    /// From the next record on, these rules.
    pub fn reload(&mut self, rules: Arc<Detectors>) {
        self.rules = rules;
        self.matcher.scratch = Scratch::default();
    }

    pub fn detectors(&self) -> &Arc<Detectors> {
        &self.rules
    }

    /// What was found since the last call, with what it cost.
    pub fn take(&mut self) -> Batch {
        let rule_costs = self.matcher.scratch.take_costs();
        let took = self.matcher.stopwatch.take();
        Batch { rule_costs, took, ..std::mem::take(&mut self.batch) }
    }

    /// One record of a stream. `arrival_ms`: when it reached the stream.
    pub fn record(&mut self, stream: &str, data: &[u8], arrival_ms: i64) {
        self.record_after(stream, data, None, arrival_ms);
    }

    /// A record of which the user records up to and with `past` have been worked before.
    pub fn record_after(&mut self, stream: &str, data: &[u8], past: Option<u64>, arrival_ms: i64) {
        let Self { rules, decoder, matcher, batch } = self;
        matcher.occurrences.clear();
        batch.tally.records += 1;
        batch.tally.bytes += data.len() as u64;
        let started = Instant::now();
        decoder.record_after(data, past, &mut |item| matcher.item(rules, stream, arrival_ms, item, batch));
        matcher.stopwatch.record(started);
    }

    /// A file begins: its texts share one count of occurrences.
    pub fn begin_file(&mut self) -> crate::decode::Stream {
        self.matcher.occurrences.clear();
        self.batch.tally.records += 1;
        crate::decode::Stream::default()
    }

    /// The next piece of a file, whose events' own times stand for their arrival.
    pub fn piece(&mut self, path: &str, piece: &[u8], stream: &mut crate::decode::Stream, last: bool) -> crate::decode::Progress {
        let Self { rules, decoder, matcher, batch } = self;
        decoder.piece(piece, stream, last, &mut |item| matcher.item(rules, path, 0, item, batch))
    }
}

impl Matcher {
    fn item(&mut self, rules: &Detectors, stream: &str, arrival_ms: i64, item: Item<'_>, batch: &mut Batch) {
        match item {
            Item::Event(event) => self.event(rules, stream, arrival_ms, &event, batch),
            Item::Left(left) => batch.tally.leave(left),
            Item::Defect(Defect { reason, at, bytes }) => batch.quarantine(reason, at, bytes),
        }
    }

    fn event(&mut self, rules: &Detectors, stream: &str, arrival_ms: i64, event: &Event<'_>, batch: &mut Batch) {
        batch.tally.events += 1;
        let Self { scratch, occurrences, stopwatch } = self;
        let running = stopwatch.event();
        let mut occurrence = |hash: [u8; 16]| {
            if occurrences.len() >= OCCURRENCES {
                occurrences.clear();
            }
            let count = occurrences.entry(hash).or_insert(0);
            *count += 1;
            *count - 1
        };
        let mut identity = None;
        let Batch { inputs, input_events, singles, newest_ms, rule_matches, tally, .. } = &mut *batch;
        let mut kept =
            Found { event: tally.events as u32, inputs, input_events, singles, newest_ms, rule_matches, time_ms: i64::MIN, undated: false };
        let outcome = rules.engine.judge(event, scratch, |found| {
            let identity = *identity.get_or_insert_with(|| rules.identity(&found, stream, &mut occurrence));
            rules.keep(&found, &identity, arrival_ms, &mut kept);
        });
        running.iter().for_each(|running| stopwatch.judged(running));
        let skewed = arrival_ms != 0 && kept.time_ms > arrival_ms.saturating_add(SKEW_MS);
        let undated = kept.undated;
        batch.tally.skewed += u64::from(skewed);
        batch.tally.undated += u64::from(undated);
        match outcome {
            Outcome::Unmatched => batch.tally.unmatched += 1,
            Outcome::Matched(_) => {
                batch.tally.matched += 1;
                batch.found_arrival_ms.get_or_insert(arrival_ms);
            }
            Outcome::Malformed { at } => {
                let text = match event.body {
                    crate::event::Body::Plain(text) | crate::event::Body::Escaped(text) | crate::event::Body::Fields { text, .. } => text,
                };
                batch.quarantine(Reason::Json, at, text);
            }
        }
    }
}
