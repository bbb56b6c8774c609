//! The rows of the core bench: one piece of work over the whole corpus, timed by the thread's CPU clock.
//!
//! In: the corpus in memory. Out: events a second. Invariant: the timed part allocates nothing that the daemon would not.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use cpu_time::ThreadTime;
use trailwarden::{
    decode::{Decoder, Item},
    demo::corpus::{Corpus, wrap::Envelopes},
    detect::{EVIDENCE_FIELDS, Engine, Scratch},
    event::FieldId,
    pipeline::{self, Detectors, Replay},
};

/// The corpus, as records and as pieces of lines with the very same events.
#[derive(Default)]
pub struct Input {
    pub events: u64,
    pub records: Vec<Vec<u8>>,
    /// Whole lines, about 100 events a piece: uncompressed records.
    pub lines: Vec<Vec<u8>>,
    /// What came before, a fifth as much, as both: a daemon has run for a while when it is looked at.
    before: [Vec<Vec<u8>>; 2],
    pub gz_bytes: u64,
    pub plain_bytes: u64,
    pub line_bytes: u64,
}

impl Input {
    /// At least so many events, in envelopes, the same for the same seed.
    pub fn of(seed: u64, events: u64) -> Self {
        let mut input = Self::default();
        let mut envelopes = Envelopes::new(Corpus::new(seed));
        let mut fill = |input: &mut Self, events| {
            while input.events < events {
                let mut record = Vec::new();
                input.events += u64::from(envelopes.next_record(&mut record));
                input.add_record(record);
            }
        };
        let mut before = Self::default();
        fill(&mut before, events / 5);
        fill(&mut input, events);
        input.before = [before.records, before.lines];
        input
    }

    fn add_record(&mut self, record: Vec<u8>) {
        let mut plain = Vec::new();
        inflate(&mut libdeflater::Decompressor::new(), &record, &mut plain);
        let envelope: serde_json::Value = serde_json::from_slice(&plain).expect("the corpus writes valid JSON");
        let mut lines = Vec::new();
        for event in envelope["logEvents"].as_array().into_iter().flatten() {
            lines.extend_from_slice(event["message"].as_str().expect("a message is a string").as_bytes());
            lines.push(b'\n');
        }
        self.gz_bytes += record.len() as u64;
        self.plain_bytes += plain.len() as u64;
        self.line_bytes += lines.len() as u64;
        self.records.push(record);
        self.lines.push(lines);
    }
}

fn inflate(decompressor: &mut libdeflater::Decompressor, record: &[u8], plain: &mut Vec<u8>) {
    let size = u32::from_le_bytes(record[record.len() - 4..].try_into().expect("four bytes")) as usize;
    if plain.len() < size {
        plain.resize(size, 0);
    }
    decompressor.gzip_decompress(record, &mut plain[..size]).expect("the corpus writes whole members");
    plain.truncate(size);
}

enum Kind<'e> {
    Gunzip,
    Envelopes(&'e Engine),
    Lines(&'e Engine),
    /// As the daemon works: captured matches, and a keeper that takes them.
    Kept(&'e Arc<Detectors>),
}

pub struct Work<'e> {
    pub name: String,
    kind: Kind<'e>,
}

pub struct Measured {
    pub name: String,
    pub events_per_s: f64,
    /// Of what the records inflate to.
    pub mb_per_s: f64,
    pub matches: u64,
}

impl<'e> Work<'e> {
    pub fn gunzip() -> Self {
        Self { name: "gunzip only".to_owned(), kind: Kind::Gunzip }
    }

    pub fn envelopes(name: &str, engine: &'e Engine) -> Self {
        Self { name: name.to_owned(), kind: Kind::Envelopes(engine) }
    }

    pub fn lines(name: &str, engine: &'e Engine) -> Self {
        Self { name: format!("{name}, lines"), kind: Kind::Lines(engine) }
    }

    pub fn kept(name: &str, detectors: &'e Arc<Detectors>) -> Self {
        Self { name: name.to_owned(), kind: Kind::Kept(detectors) }
    }

    /// Seconds of the thread, and matches found.
    fn pass(&self, input: &Input) -> (f64, u64) {
        let [records_before, lines_before] = &input.before;
        match self.kind {
            Kind::Gunzip => {
                let (mut decompressor, mut plain) = (libdeflater::Decompressor::new(), vec![0; 4 << 20]);
                let start = ThreadTime::now();
                for record in &input.records {
                    inflate(&mut decompressor, record, &mut plain);
                    black_box(&plain);
                }
                (start.elapsed().as_secs_f64(), 0)
            }
            Kind::Envelopes(engine) => timed(engine, records_before, &input.records),
            Kind::Kept(detectors) => kept(input, detectors),
            Kind::Lines(engine) => timed(engine, lines_before, &input.lines),
        }
    }
}

fn timed(engine: &Engine, before: &[Vec<u8>], records: &[Vec<u8>]) -> (f64, u64) {
    let worker = before.iter().fold(Worker::new(engine), |worker, record| worker.record(record));
    let (found, start) = (worker.matches, ThreadTime::now());
    let worker = records.iter().fold(worker, |worker, record| worker.record(record));
    (start.elapsed().as_secs_f64(), black_box(worker).matches - found)
}

fn kept(input: &Input, detectors: &Arc<Detectors>) -> (f64, u64) {
    let mut replay = Replay::new(detectors).expect("a replay");
    let mut worker = pipeline::Worker::new(Arc::clone(detectors));
    let mut take = |records: &[Vec<u8>]| {
        for record in records {
            worker.record("stream", record, 1);
            black_box(replay.take(&mut worker.batch).expect("memory takes it"));
            worker.batch.clear();
        }
        replay.tally().matched
    };
    let (found, start) = (take(&input.before[0]), ThreadTime::now());
    let all = take(&input.records);
    (start.elapsed().as_secs_f64(), all - found)
}

/// What a worker thread of the daemon holds; a match's evidence is written to a buffer, as an alert would be.
struct Worker<'e> {
    engine: &'e Engine,
    decoder: Decoder,
    scratch: Scratch,
    evidence: Vec<FieldId>,
    told: Vec<u8>,
    events: u64,
    matches: u64,
}

impl<'e> Worker<'e> {
    fn new(engine: &'e Engine) -> Self {
        let evidence = EVIDENCE_FIELDS.iter().filter_map(|name| engine.field(name)).collect();
        Self { engine, decoder: Decoder::default(), scratch: Scratch::default(), evidence, told: Vec::new(), events: 0, matches: 0 }
    }

    fn record(mut self, data: &[u8]) -> Self {
        let Self { engine, decoder, scratch, evidence, told, events, matches } = &mut self;
        decoder.record(data, &mut |item| {
            let Item::Event(event) = item else { panic!("the corpus has events only") };
            *events += 1;
            engine.judge(&event, scratch, |found| {
                *matches += 1;
                told.clear();
                for field in evidence.iter() {
                    told.extend_from_slice(found.first(*field).unwrap_or_default());
                }
                black_box(&told);
            });
        });
        self
    }
}

/// Each round runs every piece of work once, so that drift of the machine hits all alike; the best round counts.
pub fn run(input: &Input, work: &[Work<'_>], rounds: usize) -> Vec<Measured> {
    let mut best: Vec<(f64, u64)> = vec![(f64::INFINITY, 0); work.len()];
    for _ in 0..rounds {
        for (work, best) in work.iter().zip(&mut best) {
            let (spent, matches) = work.pass(input);
            if spent < best.0 {
                *best = (spent, matches);
            }
        }
    }
    let told = |(work, (spent, matches)): (&Work<'_>, &(f64, u64))| Measured {
        name: work.name.clone(),
        events_per_s: input.events as f64 / spent,
        mb_per_s: input.plain_bytes as f64 / spent / 1e6,
        matches: *matches,
    };
    work.iter().zip(&best).map(told).collect()
}

/// Events a second by the wall clock, with one thread and with two that take records in turn.
pub fn two_threads(input: &Input, engine: &Engine, rounds: usize) -> (f64, f64) {
    let wall = |threads: usize| {
        let next = AtomicUsize::new(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut worker = Worker::new(engine);
                    while let Some(record) = input.records.get(next.fetch_add(1, Ordering::Relaxed)) {
                        worker = worker.record(record);
                    }
                    black_box(worker.events);
                });
            }
        });
        input.events as f64 / start.elapsed().as_secs_f64()
    };
    (0..rounds).fold((0.0, 0.0), |(one, two): (f64, f64), _| (one.max(wall(1)), two.max(wall(2))))
}
