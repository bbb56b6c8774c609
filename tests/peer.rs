//! The same rules on the same events, three ways: lines, escaped in envelopes, and through another engine.
//!
//! In: the seeded corpus and the shared samples; the public Sigma rules. Out: the first events on which two ways differ.
//! Invariant: the ways agree on every (event, rule), but for the rules named in `KNOWN`, where the peer departs from Sigma.

#![cfg(feature = "demo")]

#[path = "support/rules.rs"]
mod rules;
#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use trailwarden::{
    decode::{Decoder, Item},
    demo::corpus::{Corpus, wrap::Envelope},
    detect::{Engine, Outcome, Scratch},
    rule::ast::Rule,
};

/// Rules that look for text in a whole object: Sigma says that it is there, the peer never matches an object.
const KNOWN: &[&str] =
    &["aws_disable_bucket_versioning.yml", "aws_iam_s3browser_templated_s3_bucket_policy_creation.yml", "aws_ec2_vm_export_failure.yml"];

/// (event, rule id), events counted from 0.
type Matches = BTreeSet<(usize, String)>;

struct Set {
    texts: Vec<(String, String)>,
    rules: Vec<Rule>,
    engine: Engine,
}

impl Set {
    fn of(texts: Vec<(String, String)>) -> Self {
        let rules = rules::parse_all(&texts);
        let engine = Engine::new(&rules).unwrap_or_else(|errors| panic!("{errors:?}"));
        Self { texts, rules, engine }
    }

    fn public() -> Option<Self> {
        let folder = tools::shared("sigma_aws/cloudtrail")?;
        Some(Self::of([rules::texts(&folder), rules::synthetic(300)].concat()))
    }

    fn matches(&self, records: &[Vec<u8>]) -> Matches {
        let (mut decoder, mut scratch, mut found, mut at) = (Decoder::default(), Scratch::default(), Matches::new(), 0);
        for record in records {
            decoder.record(record, &mut |item| {
                let Item::Event(event) = item else { panic!("event {at} is none") };
                let outcome = self.engine.judge(&event, &mut scratch, |m| {
                    found.insert((at, rules::id(&self.rules[m.rule]).to_owned()));
                });
                assert!(!matches!(outcome, Outcome::Malformed { .. }), "event {at}");
                at += 1;
            });
        }
        found
    }

    fn peer_matches(&self, peer: &Path, lines: &[u8]) -> Matches {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("lines");
        fs::write(&input, lines).unwrap();
        for (name, text) in &self.texts {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let out = Command::new(peer).arg("matches").arg("--rules").arg(folder.path()).arg("--ndjson").arg(&input).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap()).map(|(at, id)| (at.parse().unwrap(), id.to_owned())).collect()
    }

    fn known(&self) -> BTreeSet<&str> {
        self.texts
            .iter()
            .filter(|(name, _)| KNOWN.contains(&name.as_str()))
            .filter_map(|(_, text)| text.lines().find_map(|l| l.strip_prefix("id: ")))
            .collect()
    }
}

fn peer() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/release/peers");
    if !built.is_file() {
        tools::left_out("the other engine", "benches/peers/build makes it");
        return None;
    }
    Some(built)
}

fn enveloped(events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut envelope = Envelope::default();
    let mut records = Vec::new();
    for chunk in events.chunks(100) {
        chunk.iter().for_each(|event| envelope.push(1_772_409_600_000, event));
        let mut record = Vec::new();
        envelope.finish(&mut record);
        records.push(record);
    }
    records
}

fn assert_agree(one: &Matches, other: &Matches, events: &[Vec<u8>], what: &str, but: &BTreeSet<&str>) {
    let differ: Vec<&(usize, String)> = one.symmetric_difference(other).filter(|(_, rule)| !but.contains(rule.as_str())).collect();
    let tell = |(at, rule): &&(usize, String)| {
        let side = if one.contains(&(*at, rule.clone())) { "first only" } else { "second only" };
        format!("{rule} ({side}) on {}", String::from_utf8_lossy(&events[*at]))
    };
    assert!(differ.is_empty(), "{what}: {} differ\n{}", differ.len(), differ.iter().take(5).map(tell).collect::<Vec<_>>().join("\n"));
}

fn compare(set: &Set, events: &[Vec<u8>], peer: Option<&Path>) {
    let lines: Vec<u8> = events.iter().flat_map(|event| [event.as_slice(), b"\n"].concat()).collect();
    let plain = set.matches(std::slice::from_ref(&lines));
    assert!(!plain.is_empty(), "rules that never match prove nothing");
    assert_agree(&plain, &set.matches(&enveloped(events)), events, "lines and envelopes", &BTreeSet::new());
    if let Some(peer) = peer {
        assert_agree(&plain, &set.peer_matches(peer, &lines), events, "ours and the peer's", &set.known());
    }
    println!("{} events, {} matches by {} rules", events.len(), plain.len(), plain.iter().map(|(_, rule)| rule).collect::<BTreeSet<_>>().len());
}

#[test]
fn generated_events_match_alike_in_every_wrapping_and_engine() {
    let Some(set) = Set::public() else { return };
    let peer = peer();
    let count = if peer.is_some() { 50_000 } else { 5_000 };
    let mut corpus = Corpus::new(0xd1ff);
    let mut write = || {
        let mut event = Vec::new();
        corpus.next_event(&mut event);
        event
    };
    let events: Vec<Vec<u8>> = (0..count).map(|_| write()).collect();
    compare(&set, &events, peer.as_deref());
}

#[test]
fn sample_events_match_alike_in_every_wrapping_and_engine() {
    let (Some(set), Some(samples)) = (Set::public(), tools::shared("samples")) else { return };
    let mut events = Vec::new();
    for folder in ["cloudtrail_stratus", "cloudtrail_docs"] {
        let mut files: Vec<PathBuf> = fs::read_dir(samples.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| !file.to_string_lossy().contains("notjson")) {
            let document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let list = document.get("Records").unwrap_or(&document);
            let one = std::slice::from_ref(list);
            let found = list.as_array().map_or(one, Vec::as_slice);
            events.extend(found.iter().filter(|event| event.get("eventName").is_some()).map(|event| event.to_string().into_bytes()));
        }
    }
    assert!(events.len() > 300, "{} sample events", events.len());
    compare(&set, &events, peer().as_deref());
}
