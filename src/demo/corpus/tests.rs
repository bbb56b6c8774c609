//! The corpus is deterministic, valid, and of the mix that it promises.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Corpus,
    story::Story,
    wrap::{self, Envelopes, Gzip},
};

fn events(corpus: &mut Corpus, count: usize) -> Vec<Value> {
    let mut text = Vec::new();
    (0..count)
        .map(|_| {
            text.clear();
            corpus.next_event(&mut text);
            serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)))
        })
        .collect()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let len = u32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap()) as usize;
    let mut out = vec![0; len];
    libdeflater::Decompressor::new().gzip_decompress(bytes, &mut out).unwrap();
    out
}

#[test]
fn the_same_seed_writes_the_same_bytes() {
    let write = |seed| {
        let mut out = Vec::new();
        wrap::ndjson(&mut Corpus::new(seed), 500, &mut out).unwrap();
        out
    };
    assert_eq!(write(7), write(7));
    assert_ne!(write(7), write(8));
}

/// Every call of every table, however rare, is valid JSON with the fields that make it an event.
#[test]
fn every_call_is_an_event() {
    for mut corpus in [Corpus::new(1), Corpus::benign_day(1, 20_000)] {
        let mut text = Vec::new();
        for at in 0..corpus.entries.len() {
            let pool = corpus.entries[at].pools[0];
            let session = corpus.draw_session(pool, false);
            let (call, session) = (&corpus.entries[at].call, &corpus.pools[pool].sessions[session]);
            text.clear();
            super::fill(call, session, &corpus.keys, &mut corpus.clock, &mut corpus.random, &mut text);
            let event: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)));
            assert_eq!(event["eventName"], call.name);
            assert!(event["eventID"].is_string() && event["userIdentity"]["type"].is_string(), "{event}");
        }
    }
}

#[test]
fn the_mix_is_what_the_benches_say() {
    let events = events(&mut Corpus::new(3), 4_000);
    let reads = events.iter().filter(|e| e["readOnly"] == true).count();
    let roles = events.iter().filter(|e| e["userIdentity"]["type"] == "AssumedRole").count();
    let bytes: usize = events.iter().map(|e| e.to_string().len()).sum();
    println!("{reads} reads, {roles} roles, {bytes} bytes of {}", events.len());
    let share = |n: usize| n * 1000 / events.len();
    assert!((960..995).contains(&share(reads)), "{} of 1000 are reads", share(reads));
    assert!((800..970).contains(&share(roles)), "{} of 1000 are assumed roles", share(roles));
    assert!((1500..1900).contains(&(bytes / events.len())), "{} bytes an event", bytes / events.len());
}

#[test]
fn a_benign_day_is_24_hours_of_work() {
    let events = events(&mut Corpus::benign_day(5, 4_000), 4_000);
    let mut by_hour = BTreeMap::<String, usize>::new();
    for event in &events {
        let time = event["eventTime"].as_str().unwrap();
        *by_hour.entry(time[11..13].to_owned()).or_default() += 1;
        let person = event["userIdentity"]["arn"].as_str().is_some_and(|arn| arn.contains("AWSReservedSSO"));
        let mixed = matches!(event["eventName"].as_str(), Some("DescribeDBSnapshots" | "GetCallerIdentity" | "DescribeAlarms" | "FilterLogEvents"));
        let mixed = mixed || event["eventName"] == "GetResourceMetrics" || event["eventName"] == "DescribeTable";
        assert!(!person || mixed || ("07".."19").contains(&&time[11..13]), "{event}");
        assert_ne!(event["userIdentity"]["userName"], "deploy-bot");
    }
    assert_eq!(by_hour.len(), 24);
    assert!(events.iter().any(|e| e["eventType"] == "AwsServiceEvent"));
}

#[test]
fn wrappings_hold_the_same_events() {
    let lines = events(&mut Corpus::new(9), 40);
    let file: Value = serde_json::from_slice(&gunzip(&wrap::s3_file(&mut Corpus::new(9), 40, &mut Gzip::default()))).unwrap();
    assert_eq!(file["Records"].as_array().unwrap(), &lines);

    let mut record = Vec::new();
    let count = Envelopes::new(Corpus::new(9)).with_sizes(40..=40).next_record(&mut record);
    let envelope: Value = serde_json::from_slice(&gunzip(&record)).unwrap();
    let inside: Vec<Value> =
        envelope["logEvents"].as_array().unwrap().iter().map(|e| serde_json::from_str(e["message"].as_str().unwrap()).unwrap()).collect();
    assert_eq!((count, envelope["messageType"].as_str()), (40, Some("DATA_MESSAGE")));
    assert_eq!(inside.len(), 40);
    // The record's size is drawn from the same seed, so the events are other ones; each still decodes.
    assert!(inside.iter().all(|e| e["eventSource"].is_string()));
    assert!(envelope["logEvents"].as_array().unwrap().iter().all(|e| e["id"].as_str().unwrap().len() == 56));
}

#[test]
fn the_story_is_one_principal_and_ends_with_the_trail() {
    let mut story = Story::new(1);
    let steps: Vec<(u64, String)> = story.steps().map(|s| (s.at_ms, s.name.to_owned())).collect();
    assert!(steps.windows(2).all(|pair| pair[0].0 <= pair[1].0) && steps[0].0 < 1_000);
    assert_eq!(steps.last().unwrap().1, "StopLogging");
    let mut arns = std::collections::BTreeSet::new();
    for at in 0..steps.len() {
        let mut text = Vec::new();
        story.write(at, 1_772_409_600_000, &mut text);
        let event: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(event["eventTime"], "2026-03-02T00:00:00Z");
        arns.insert(event["userIdentity"]["arn"].to_string());
    }
    assert_eq!(arns.len(), 1);
}
