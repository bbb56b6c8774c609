//! What must hold for any bytes: no panic, no hang, and the fast path finds what a full parse finds.
//!
//! In: bytes from a fuzzer, or a case that one found. Out: a panic where a promise is broken. Invariant: the same functions run
//! in the fuzzer and over `fuzz/found` in tests/fuzzed.rs.

use std::{
    cell::RefCell,
    sync::{Arc, LazyLock},
};

use trailwarden::{
    decode::{
        Decoder, Item,
        log::{Batch, Kind, LogDecoder, Route},
    },
    detect::{Engine, Outcome, Scratch},
    event::{Event, Routing},
    rule::{Lists, ast::Document, sigma},
};

/// Rules of every kind that routing treats apart: by name, by pattern, by absence, by negation, by keyword, by object text.
const RULES: &str = "
title: name
logsource: {product: aws, service: cloudtrail}
detection: {a: {eventSource: cloudtrail.amazonaws.com, eventName: [StopLogging, DeleteTrail]}, condition: a}
---
title: pattern
logsource: {product: aws, service: cloudtrail}
detection: {a: {eventName|startswith: Describe, userAgent|contains: aws-cli}, b: {eventName|re: '^(Get|List)[A-Z]'}, condition: a or b}
---
title: absent
logsource: {product: aws, service: cloudtrail}
detection: {a: {errorCode: null, eventName|contains: a}, b: {userAgent|exists: false}, condition: a or b}
---
title: negated
logsource: {product: aws, service: cloudtrail}
detection: {a: {eventSource|endswith: amazonaws.com}, b: {userIdentity.type: [IAMUser, AssumedRole]}, condition: a and not b}
---
title: keyword
logsource: {product: aws, service: cloudtrail}
detection: {k: ['*terraform*', '999900001111'], condition: k}
---
title: object
logsource: {product: aws, service: cloudtrail}
detection: {a: {requestParameters|contains: '\"AWS\"'}, b: {requestParameters.ipPermissions.items.ipRanges.items.cidrIp: 0.0.0.0/0}, condition: a or b}
---
title: network
logsource: {product: aws, service: cloudtrail}
detection: {a: {sourceIPAddress|cidr: 203.0.113.0/24}, b: {eventTime|hour: 3}, condition: a and not b}
---
title: same
logsource: {product: aws, service: cloudtrail}
detection: {a: {userIdentity.accountId|fieldref: recipientAccountId}, condition: a}
";

/// One parser each; a new kind of log is added here.
const KINDS: [Kind; 6] = [Kind::Postgres, Kind::MysqlAudit, Kind::MysqlError, Kind::MysqlGeneral, Kind::MysqlSlow, Kind::OracleAudit];

pub const RULES_COUNT: usize = 8;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let parsed = sigma::parse(&Arc::from("checks"), RULES, &Lists::default());
    let rules: Vec<_> = parsed.documents.into_iter().filter_map(|d| if let Document::Rule(rule) = d { Some(rule) } else { None }).collect();
    assert_eq!(rules.len(), RULES_COUNT, "{:?}", parsed.diagnostics);
    Engine::new(&rules).expect("the rules compile")
});

#[derive(Default)]
struct Buffers {
    decoder: Decoder,
    fast: Scratch,
    full: Scratch,
    logs: LogDecoder,
    /// Wrapped input, for the targets that wrap it.
    wrapped: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// The first byte says how the rest is wrapped before it goes in as a record.
pub fn record(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    BUFFERS.with_borrow_mut(|buffers| {
        let mut wrapped = std::mem::take(&mut buffers.wrapped);
        wrapped.clear();
        match how % 4 {
            0 => wrapped.extend_from_slice(rest),
            1 => gzip(rest, &mut wrapped),
            2 => {
                wrapped.extend_from_slice(&[0xF3, 0x89, 0x9A, 0xC2]);
                wrapped.extend_from_slice(rest);
            }
            _ => aggregate(rest, &mut wrapped),
        }
        judge_all(buffers, &wrapped);
        buffers.wrapped = wrapped;
    });
}

/// An event's text: by itself, and as a message inside an envelope.
pub fn event(data: &[u8]) {
    BUFFERS.with_borrow_mut(|buffers| {
        judge_all(buffers, data);
        let Ok(text) = std::str::from_utf8(data) else { return };
        let message = serde_json::to_string(text).expect("a string becomes JSON");
        let envelope = format!(
            r#"{{"messageType":"DATA_MESSAGE","owner":"111122223333","logGroup":"g","logStream":"s","subscriptionFilters":["f"],"logEvents":[{{"id":"1","timestamp":1,"message":{message}}},{{"id":"2","timestamp":2,"message":{message}}}]}}"#
        );
        judge_all(buffers, envelope.as_bytes());
    });
}

/// Rule text: whatever it says, an answer; what it accepts, an engine that can judge.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = sigma::parse(&Arc::from("fuzzed.yml"), text, &Lists::default());
    for diagnostic in &parsed.diagnostics {
        assert!(!diagnostic.render(text, false).is_empty());
    }
    let rules: Vec<_> = parsed.documents.into_iter().filter_map(|d| if let Document::Rule(rule) = d { Some(rule) } else { None }).collect();
    let Ok(engine) = Engine::new(&rules) else { return };
    let event = br#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/x"},"eventTime":"2026-03-02T03:04:05Z","eventSource":"rds.amazonaws.com","eventName":"DeleteDBInstance","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.9","userAgent":"aws-cli","requestParameters":{"a":[{"b":1},{"b":"x"}],"policy":"{\"Statement\":[]}"},"responseElements":null}"#;
    let (mut decoder, mut fast, mut full) = (Decoder::default(), Scratch::default(), Scratch::default());
    decoder.record(event, &mut |item| {
        if let Item::Event(event) = item {
            agree(&engine, &event, &mut fast, &mut full);
        }
    });
}

/// The first byte says which log the rest is from. Entries lie in the text, in order, and no byte is counted twice.
pub fn logs(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let route = Route::of(KINDS[*which as usize % KINDS.len()]);
    let batch = Batch { route: &route, text, pieces: &[], stream: 0, now_ms: 1_772_409_600_000 };
    BUFFERS.with_borrow_mut(|buffers| {
        let (mut events, mut bytes, mut start) = (0, 0, 0);
        let outcome = buffers.logs.decode(&batch, |event| {
            let at = event.raw.as_ptr() as usize - text.as_ptr() as usize;
            assert!(at >= start && at + event.raw.len() <= text.len(), "entry at {at}, the one before at {start}");
            start = at;
            events += 1;
            bytes += event.raw.len() as u64;
            event.iter().for_each(|(_, value)| assert!(value.len() <= text.len() * 2 + 64));
        });
        assert_eq!(outcome.events, events);
        assert!(bytes + outcome.skipped_bytes <= text.len() as u64, "{bytes} + {} of {}", outcome.skipped_bytes, text.len());
    });
}

fn judge_all(buffers: &mut Buffers, record: &[u8]) {
    let Buffers { decoder, fast, full, .. } = buffers;
    decoder.record(record, &mut |item| match item {
        Item::Event(event) => agree(&ENGINE, &event, fast, full),
        Item::Left(left) => assert!(!left.name().is_empty()),
        Item::Defect(defect) => assert!(!defect.reason.to_string().is_empty()),
    });
}

/// What routing lets through equals what a full parse finds. Where a full parse refuses the text, nothing is said.
fn agree(engine: &Engine, event: &Event<'_>, fast: &mut Scratch, full: &mut Scratch) {
    let (mut quick, mut slow) = (Vec::new(), Vec::new());
    engine.judge(event, fast, |found| quick.push(found.rule));
    let unrouted = Event { routing: Routing::default(), ..*event };
    let outcome = engine.judge(&unrouted, full, |found| slow.push(found.rule));
    if !matches!(outcome, Outcome::Malformed { .. }) {
        assert_eq!(quick, slow, "{:?}", event.body);
    }
}

fn gzip(plain: &[u8], out: &mut Vec<u8>) {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    out.resize(compressor.gzip_compress_bound(plain.len()), 0);
    let length = compressor.gzip_compress(plain, out).expect("the bound is large enough");
    out.truncate(length);
}

/// A well-formed KPL aggregate of the two halves of `data`.
fn aggregate(data: &[u8], out: &mut Vec<u8>) {
    use md5::Digest as _;
    let mut body = Vec::from([0x0a, 1, b'k']);
    for half in data.chunks(data.len().div_ceil(2).max(1)) {
        let mut record = Vec::from([0x08, 0x00, 0x1a]);
        varint(half.len(), &mut record);
        record.extend_from_slice(half);
        body.push(0x1a);
        varint(record.len(), &mut body);
        body.extend_from_slice(&record);
    }
    out.extend_from_slice(&[0xF3, 0x89, 0x9A, 0xC2]);
    out.extend_from_slice(&body);
    out.extend_from_slice(&md5::Md5::digest(&body));
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
