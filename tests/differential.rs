//! The fast path against a plain full parse: the same matches on every sample, on generated events and on hostile variants.
#![cfg(feature = "demo")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trailwarden::decode::{Decoder, Item};
use trailwarden::demo::corpus::{Corpus, wrap};
use trailwarden::detect::{Engine, Outcome, Scratch};
use trailwarden::event::Routing;
use trailwarden::rule::ast::{Document, Rule};
use trailwarden::rule::{Lists, sigma};
use trailwarden::source::files;

fn shared() -> PathBuf {
    std::env::var_os("TRAILWARDEN_SHARED").map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from)
}

fn rules(folder: &Path) -> Vec<Rule> {
    let files = files::walk(&[folder.to_owned()]).unwrap_or_default();
    let yaml = files.iter().filter(|p| p.extension().is_some_and(|e| e == "yml") && !p.to_string_lossy().ends_with(".cases.yml"));
    let documents =
        yaml.flat_map(|path| sigma::parse(&path.display().to_string().into(), &std::fs::read_to_string(path).unwrap(), &Lists::default()).documents);
    documents.filter_map(|d| if let Document::Rule(rule) = d { Some(rule) } else { None }).collect()
}

/// The built-in detectors, the public AWS rules where they are, and some that lean on what is absent.
fn engine() -> Engine {
    let mut all = rules(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/detectors")));
    assert!(all.len() > 20);
    let public = rules(&shared().join("sigma_aws"));
    if public.is_empty() {
        println!("left out: the public Sigma rules (no shared folder)");
    }
    all.extend(public);
    let odd = "
title: absent
logsource: {product: aws, service: cloudtrail}
detection: {a: {errorCode: null, eventName|contains: 'a'}, b: {userAgent|exists: false}, condition: a or b}
---
title: negated
logsource: {product: aws, service: cloudtrail}
detection: {a: {eventSource|endswith: amazonaws.com}, b: {userIdentity.type: [IAMUser, AssumedRole]}, condition: a and not b}
---
title: stopped
logsource: {product: aws, service: cloudtrail}
detection: {a: {eventName: StopLogging}, condition: a}
---
title: keyword
logsource: {product: aws, service: cloudtrail}
detection: {k: ['*terraform*'], condition: k}
---
title: caller
logsource: {product: aws, service: cloudtrail}
detection: {a: {derived.principal.kind: [service, person]}, b: {derived.source.block: '?*'}, condition: a or not b}
---
title: role
logsource: {product: aws, service: cloudtrail}
detection: {a: {requestParameters.roleArn|contains: [etl, report]}, condition: a}
---
title: secret
logsource: {product: aws, service: cloudtrail}
detection: {a: {requestParameters.secretId|contains: ledger}, condition: a}
---
title: foreign
logsource: {product: aws, service: cloudtrail}
detection: {a: {derived.foreign_account.userIdentity.accountId: '?*'}, condition: a}
---
title: function
logsource: {product: aws, service: cloudtrail}
detection: {a: {userIdentity.inScopeOf.issuerType|contains: Lambda}, b: {derived.source.network: private}, condition: a or not b}
";
    let parsed = sigma::parse(&"odd".into(), odd, &Lists::default());
    assert_eq!(parsed.documents.len(), 9, "{:?}", parsed.diagnostics);
    all.extend(parsed.documents.into_iter().filter_map(|d| if let Document::Rule(rule) = d { Some(rule) } else { None }));
    Engine::new(&all).expect("the rules compile")
}

struct Compare {
    engine: Engine,
    decoder: Decoder,
    fast: Scratch,
    full: Scratch,
}

impl Compare {
    fn new() -> Self {
        Self { engine: engine(), decoder: Decoder::default(), fast: Scratch::default(), full: Scratch::default() }
    }

    /// Events and matches of a record; panics where the two ways differ.
    fn record(&mut self, data: &[u8]) -> (usize, usize) {
        let (mut events, mut matches) = (0, 0);
        let Self { engine, decoder, fast, full } = self;
        decoder.record(data, &mut |item| {
            let Item::Event(event) = item else { return };
            events += 1;
            let (mut quick, mut slow) = (Vec::new(), Vec::new());
            engine.judge(&event, fast, |m| quick.push(m.rule));
            let plain = trailwarden::event::Event { routing: Routing::default(), ..event };
            let outcome = engine.judge(&plain, full, |m| slow.push(m.rule));
            // Text that no full parse accepts matches nothing either way, or is quarantined by the slow one.
            if !matches!(outcome, Outcome::Malformed { .. }) {
                assert_eq!(quick, slow, "{:?}", event.body);
            }
            matches += slow.len();
        });
        (events, matches)
    }
}

#[test]
fn samples() {
    let mut compare = Compare::new();
    let folder = shared().join("samples");
    let Ok(files) = files::walk(&[folder]) else {
        println!("left out: samples (no shared folder)");
        return;
    };
    let mut total = (0, 0);
    for path in files {
        let (events, matches) = compare.record(&std::fs::read(path).unwrap());
        total = (total.0 + events, total.1 + matches);
    }
    println!("samples: {} events, {} matches", total.0, total.1);
    assert!(total.0 > 300 && total.1 > 50);
}

#[test]
fn generated_events() {
    let mut compare = Compare::new();
    let mut total = (0, 0);
    let mut lines = Vec::new();
    wrap::ndjson(&mut Corpus::new(7), 6_000, &mut lines).unwrap();
    let mut gzip = wrap::Gzip::default();
    let mut records = vec![lines, wrap::s3_file(&mut Corpus::new(8), 3_000, &mut gzip)];
    let mut envelopes = wrap::Envelopes::new(Corpus::new(9));
    for _ in 0..40 {
        let mut record = Vec::new();
        envelopes.next_record(&mut record);
        records.push(record);
    }
    for record in records {
        let (events, matches) = compare.record(&record);
        total = (total.0 + events, total.1 + matches);
    }
    println!("generated: {} events, {} matches", total.0, total.1);
    assert!(total.0 > 12_000 && total.1 > 1_000);
}

/// Ways to write the same event so that a careless reader misses something.
fn twist(event: &str, kind: usize, at: usize) -> String {
    let key = ["eventName", "eventSource", "userIdentity", "errorCode", "userAgent"][at % 5];
    let quoted = format!("\"{key}\":");
    match kind {
        0 => event.replacen(&quoted, &format!("\"\\u{:04x}{}\":", key.as_bytes()[0], &key[1..]), 1),
        1 => event.replacen('{', &format!("{{{quoted}\"Other\","), 1),
        2 => format!("{},{quoted}\"Other\"}}", event.strip_suffix('}').unwrap_or(event)),
        3 => event.replacen('{', &format!("{{\"x\":{{{quoted}\"Nested\"}},"), 1),
        4 => event.replacen(&quoted, &format!("\"{key}\" :  "), 1),
        5 => event.replacen(&quoted, &format!("\"{key}\\ud800\":1,{quoted}"), 1),
        6 => event.replacen("\"eventVersion\":\"", "\"eventVersion\":\"\\ud800\\u0022 \\\\", 1),
        7 => event.replacen('{', "{\"a\\\"eventName\":\"StopLogging\",\"b\":\"}]\\\\\",", 1),
        8 => event.replacen(&quoted, &format!("\"type\":\"Root\",{quoted}"), 1),
        9 => event.replacen(&quoted, &format!("{quoted}null,{quoted}"), 1),
        // What says who calls, beside an identity that was seen before.
        10 => event.replacen("\"AwsApiCall\"", "\"AwsServiceEvent\"", 1),
        11 => event.replacen("\"AwsApiCall\"", "\"\\u0041wsServiceEvent\"", 1),
        12 => format!("{},\"sessionCredentialFromConsole\":\"true\"}}", event.strip_suffix('}').unwrap_or(event)),
        13 => format!("{},\"userIdentity.invokedBy\":\"rds.amazonaws.com\"}}", event.strip_suffix('}').unwrap_or(event)),
        14 => event.replacen("\"sessionContext\":{", "\"inScopeOf\":{\"issuerType\":\"AWS::Lambda::Function\"},\"sessionContext\":{", 1),
        15 => event.replacen("\"sourceIPAddress\":\"", "\"sourceIPAddress\":\"203.0.113.9\",\"b\":\"", 1),
        16 => event.replacen("\"recipientAccountId\":\"", "\"recipientAccountId\":\"9", 1),
        17 => event.replacen("\"requestParameters\":{", "\"requestParameters\":{\"roleArn\":\"etl\",\"secretId\":[\"ledger\"],", 1),
        18 => event.replacen(
            "\"requestParameters\":{",
            "\"requestParameters\":{\"roleArn\":\"\\u0065tl\",\"secretId\":\"ledger\",\"recipientAccountId\":\"1\",",
            1,
        ),
        _ => event.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn hostile_variants(seed in 0u64..1_000, twists in proptest::collection::vec((0usize..20, 0usize..5), 1..4)) {
        thread_local!(static COMPARE: std::cell::RefCell<Compare> = std::cell::RefCell::new(Compare::new()));
        let mut event = Vec::new();
        Corpus::new(seed).next_event(&mut event);
        let mut text = String::from_utf8(event).unwrap();
        let enveloped = |text: &str| {
            let quoted = serde_json::to_string(text).unwrap();
            format!(r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","subscriptionFilters":[],"logEvents":[{{"id":"1","timestamp":1,"message":{quoted}}}]}}"#)
        };
        let plain = enveloped(&text);
        for (kind, at) in twists {
            text = twist(&text, kind, at);
        }
        let envelope = enveloped(&text);
        COMPARE.with_borrow_mut(|compare| {
            compare.record(plain.as_bytes());
            compare.record(text.as_bytes());
            compare.record(envelope.as_bytes());
        });
    }
}

#[test]
fn nothing_hides_stop_logging() {
    let engine = engine();
    let plain = r#"{"eventVersion":"1.08","userIdentity":{"type":"IAMUser"},"eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","userAgent":"x"}"#;
    for event in [
        plain.to_owned(),
        plain.replace(r#""eventName":"StopLogging""#, r#""eventName":"ListTrails","eventName":"StopLogging""#),
        plain.replace(r#""eventName":"StopLogging""#, r#""eventName":"StopLogging","eventName":"ListTrails""#),
        plain.replace(r#""eventName""#, r#""\u0065vent\u004eame""#),
        plain.replace("StopLogging", r"Stop\u004cogging"),
        plain.replace(r#""userAgent":"x""#, r#""userAgent":"\ud800""#),
        plain.replace("StopLogging", "sTOPlOGGING"),
        format!("\u{feff}{plain}"),
    ] {
        let mut hits = 0;
        let mut scratch = Scratch::default();
        Decoder::default().record(event.as_bytes(), &mut |item| {
            if let Item::Event(event) = item {
                engine.judge(&event, &mut scratch, |_| hits += 1);
            }
        });
        assert!(hits > 0, "{event}");
    }
}
