//! Every wrapping, every way to be broken.

use std::io::Write;

use super::*;
use crate::event::{Body, Kind, json};

const RECORD: &str = r#"{"eventVersion":"1.08","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","userAgent":"a \"q\""}"#;

fn gz(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn cwl(messages: &[&str]) -> String {
    let events: Vec<_> = messages
        .iter()
        .enumerate()
        .map(|(i, m)| format!(r#"{{"id":"{i:056}","timestamp":1767225600000,"message":{}}}"#, serde_json::to_string(m).unwrap()))
        .collect();
    format!(
        r#"{{"messageType":"DATA_MESSAGE","owner":"111122223333","logGroup":"trail","logStream":"s","subscriptionFilters":["f"],"logEvents":[{}]}}"#,
        events.join(",")
    )
}

/// One word per item: an event's kind and plain text, what was left out, a defect's reason.
fn items(data: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    Decoder::default().record(data, &mut |item| {
        found.push(match item {
            Item::Event(event) => {
                let mut text = Vec::new();
                match event.body {
                    Body::Plain(plain) => text.extend_from_slice(plain),
                    Body::Escaped(escaped) => json::unescape(escaped, &mut text),
                    Body::Fields { text: line, .. } => text.extend_from_slice(line),
                }
                let name = if text == RECORD.as_bytes() { "RECORD".to_owned() } else { String::from_utf8_lossy(&text).into_owned() };
                format!("{:?} {} {name}", event.kind, event.context.account)
            }
            Item::Left(left) => left.name().to_owned(),
            Item::Defect(defect) => format!("{:?}", defect.reason),
        });
    });
    found
}

fn check(data: impl AsRef<[u8]>, expected: &[&str]) {
    assert_eq!(items(data.as_ref()), expected, "{}", String::from_utf8_lossy(data.as_ref()));
}

fn base64(data: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(data)
}

#[test]
fn wrappings() {
    let quoted = serde_json::to_string(RECORD).unwrap();
    let r = "CloudTrail  RECORD";
    check(RECORD, &[r]);
    check(format!("\u{feff}{RECORD}\r\n{RECORD}"), &[r, r]);
    check(format!("{RECORD}{RECORD}"), &[r, r]);
    check(format!("[{RECORD},\n{RECORD}]{RECORD}"), &[r, r, r]);
    check(format!(r#"{{ "Records" : [{RECORD}, {RECORD}], "x":{{}} }}{RECORD}"#), &[r, r, r]);
    check(gz(&gz(RECORD.as_bytes())), &[r]);
    check([gz(RECORD.as_bytes()), gz(RECORD.as_bytes())].concat(), &[r, r]);
    check(gz(cwl(&[RECORD, RECORD]).as_bytes()), &["CloudTrail 111122223333 RECORD", "CloudTrail 111122223333 RECORD"]);
    check(
        format!(
            r#"{{"logEvents":[{{"timestamp":1,"extractedFields":{{"@aws.account":"999988887777"}},"message":{quoted},"id":"1"}}],"logGroup":"g","messageType":"DATA_MESSAGE","owner":"1"}}"#
        ),
        &["CloudTrail 999988887777 RECORD"],
    );
    check(
        r#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],"logEvents":[{"id":"","timestamp":1,"message":"CWL"}]}"#,
        &["control message"],
    );
    for detail_type in ["AWS API Call via CloudTrail", "Amazon API Call via CloudTrail"] {
        check(
            format!(r#"{{"version":"0","id":"i","detail-type":"{detail_type}","source":"aws.rds","account":"1","detail":{RECORD}}}"#),
            &["CloudTrail 1 RECORD"],
        );
    }
    check(format!(r#"{{"Type":"Notification","MessageId":"m","Message":{quoted}}}"#), &[r]);
    check(format!(r#"{{"Records":[{{"kinesis":{{"data":"{}"}},"eventSource":"aws:kinesis"}}]}}"#, base64(&gz(RECORD.as_bytes()))), &[r]);
    check(format!(r#"{{"requestId":"r","timestamp":1,"records":[{{"data":"{}"}},{{"data":""}}]}}"#, base64(RECORD.as_bytes())), &[r]);
    check(format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, base64(&gz(cwl(&[RECORD]).as_bytes()))), &["CloudTrail 111122223333 RECORD"]);
    check(format!(r#"{{"Events":[{{"EventId":"e","CloudTrailEvent":{quoted}}}]}}"#), &[r]);
    check(r#"{"awsAccountId":"1","digestS3Object":"x"}"#, &["digest file"]);
    check(
        r#"{"eventVersion":"1.07","eventType":"AwsCloudTrailInsight","insightDetails":{}}"#,
        &[r#"Insight  {"eventVersion":"1.07","eventType":"AwsCloudTrailInsight","insightDetails":{}}"#],
    );
}

#[test]
fn kpl() {
    use md5::{Digest, Md5};
    let mut body = vec![10, 1, b'k'];
    for _ in 0..2 {
        let mut record = vec![8, 0, 26];
        record.extend(varint(RECORD.len()));
        record.extend(RECORD.as_bytes());
        body.push(26);
        body.extend(varint(record.len()));
        body.extend(record);
    }
    let mut data = vec![0xf3, 0x89, 0x9a, 0xc2];
    data.extend(&body);
    data.extend(&Md5::digest(&body)[..]);
    check(&data, &["CloudTrail  RECORD", "CloudTrail  RECORD"]);
    body.truncate(body.len() - 3);
    data.truncate(4);
    data.extend(&body);
    data.extend(&Md5::digest(&body)[..]);
    check(&data, &["CloudTrail  RECORD", "Kpl"]);
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[test]
fn broken_neighbours() {
    let r = "CloudTrail  RECORD";
    check(format!("{{\"eventSource\":\"x\",\"eventName\n{RECORD}\n{{\"a\":[1\n{RECORD}\n"), &["Json", r, "Json", r]);
    check(format!("junk here\n{RECORD}\nmore"), &["Unknown", r, "Unknown"]);
    check(&RECORD[..60], &["Truncated"]);
    let gzipped = gz(RECORD.as_bytes());
    check(&gzipped[..gzipped.len() - 9], &["Gzip"]);
    check(gz(&vec![b' '; 80 << 20]), &["GzipTooLarge"]);
    let mut nested = RECORD.as_bytes().to_vec();
    for _ in 0..10 {
        nested = gz(&nested);
    }
    check(&nested, &["TooNested"]);
    check(cwl(&["{\"a\":", RECORD]), &["Truncated", "CloudTrail 111122223333 RECORD"]);
}

#[test]
fn kinds_hold_without_order() {
    let text = r#"{"eventName":"x","eventSource":"y","eventTime":17}"#;
    let mut kinds = Vec::new();
    Decoder::default().record(text.as_bytes(), &mut |item| {
        if let Item::Event(event) = item {
            kinds.push(event.kind);
        }
    });
    assert_eq!(kinds, [Kind::CloudTrail]);
}

#[test]
fn every_kind_of_record_is_its_own() {
    let network = r#"{"eventSource":"kms.amazonaws.com","eventName":"Decrypt","errorCode":"VpceAccessDenied","eventCategory":"NetworkActivity" }"#;
    check(network, &[&format!("NetworkActivity  {network}")]);
    check(cwl(&[network]), &[&format!("NetworkActivity 111122223333 {network}")]);
    let talk = r#"{"eventSource":"x","eventName":"y","userAgent":"NetworkActivity"}"#;
    check(
        network.replace(r#""NetworkActivity" }"#, r#""Management"}"#).as_str(),
        &[&format!("CloudTrail  {}", network.replace(r#""NetworkActivity" }"#, r#""Management"}"#))],
    );
    check(talk, &[&format!("CloudTrail  {talk}")]);
    let counts = r#"{"eventId":"i","accountId":"1","eventCategory":"Aggregated","timeWindow":{}}"#;
    check(counts, &[&format!("Aggregated  {counts}")]);
}

#[test]
fn database_logs_in_envelopes_and_files() {
    let line = "2026-11-24 02:52:55 UTC:127.0.0.1(46948):app@shop:[16230]:FATAL:  password authentication failed for user \"app\"";
    let detail = "2026-11-24 02:52:55 UTC:127.0.0.1(46948):app@shop:[16230]:DETAIL:  Role \"app\" does not exist.";
    let payload = cwl(&[line, detail]).replace("\"trail\"", "\"/aws/rds/instance/orders/postgresql\"");
    let file = format!("{line}\n{detail}\n");
    for data in [payload.as_bytes(), gz(payload.as_bytes()).as_slice(), file.as_bytes()] {
        let mut seen = Vec::new();
        Decoder::default().record(data, &mut |item| match item {
            Item::Event(event) => {
                let Body::Fields { fields, .. } = event.body else { panic!("{event:?}") };
                let get = |name| fields.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| std::str::from_utf8(v).unwrap());
                seen.push(format!("{} {} {} {}", event.logsource.product, get("db.event"), get("db.user"), get("db.reason")));
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].starts_with("postgresql login_failed app"), "{seen:?}");
    }
    check(cwl(&["some service said something"]), &["Log 111122223333 some service said something"]);
}
