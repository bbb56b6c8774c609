//! Decode and detect allocate nothing per event once their buffers have grown, match or no match.
//!
//! In: the seeded corpus as envelopes and as lines; quiet rules, and one that matches almost all. Out: a count of allocations.
//! Invariant: the count of a pass over records that were seen before is zero.
#![cfg(feature = "demo")]
#![allow(unsafe_code)]

#[path = "support/rules.rs"]
mod rules;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use trailwarden::{
    decode::{Decoder, Item},
    demo::corpus::{
        Corpus,
        wrap::{self, Envelopes},
    },
    detect::{Engine, Scratch},
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call to the system's allocator unchanged; the counter is plain data that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Matches every call by a role: nine in ten.
const FLOOD: &str = "title: Roles\nid: 11111111-0000-4000-8000-000000000000\nlogsource:\n    product: aws\n    service: cloudtrail\ndetection:\n    selection:\n        userIdentity.type: AssumedRole\n        userIdentity.sessionContext.sessionIssuer.type: Role\n    condition: selection\nlevel: low\n";

/// Matches now and then, by what only a parse can tell.
const RARE: &str = "title: Shared\nid: 11111111-0000-4000-8000-000000000001\nlogsource:\n    product: aws\n    service: cloudtrail\ndetection:\n    selection:\n        eventSource: rds.amazonaws.com\n        requestParameters|contains: '999900001111'\n    open:\n        eventName: PutKeyPolicy\n        requestParameters.policy|contains: 'Anyone'\n    condition: selection or open\nlevel: high\n";

fn records() -> Vec<Vec<u8>> {
    let mut envelopes = Envelopes::new(Corpus::new(11)).with_sizes(50..=80);
    let mut records: Vec<Vec<u8>> = Vec::new();
    for _ in 0..25 {
        let mut record = Vec::new();
        envelopes.next_record(&mut record);
        records.push(record);
        let mut lines = Vec::new();
        wrap::ndjson(&mut Corpus::new(records.len() as u64), 60, &mut lines).expect("a vector takes all");
        records.push(lines);
    }
    records
}

/// Allocations of one pass, and its matches.
fn pass(engine: &Engine, records: &[Vec<u8>], decoder: &mut Decoder, scratch: &mut Scratch) -> (u64, u64) {
    let before = ALLOCATIONS.with(Cell::get);
    let mut matches = 0;
    for record in records {
        decoder.record(record, &mut |item| {
            let Item::Event(event) = item else { panic!("the corpus has events only") };
            engine.judge(&event, scratch, |_| matches += 1);
        });
    }
    (ALLOCATIONS.with(Cell::get) - before, matches)
}

#[test]
fn nothing_is_allocated_per_event() {
    let records = records();
    for (what, texts, expected) in
        [("rules that never match", Vec::new(), 0..=0), ("a rare match", vec![RARE], 1..=200), ("a flood", vec![RARE, FLOOD], 2_000..=4_000)]
    {
        let mut set = rules::parse_all(&rules::synthetic(200));
        set.extend(texts.iter().flat_map(|text| rules::parse("flood.yml", text)));
        let engine = Engine::new(&set).expect("the rules compile");
        let (mut decoder, mut scratch) = (Decoder::default(), Scratch::default());
        let (grown, _) = pass(&engine, &records, &mut decoder, &mut scratch);
        assert!(grown > 0, "{what}: the first pass grows the buffers, or the allocator does not count");
        let (allocations, matches) = pass(&engine, &records, &mut decoder, &mut scratch);
        assert!(expected.contains(&matches), "{what}: {matches} matches");
        assert_eq!(allocations, 0, "{what}: allocations in a pass of {matches} matches");
    }
}
