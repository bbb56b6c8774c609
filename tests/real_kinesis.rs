//! The embedded endpoint's answers beside those of kinesis-local, and the consumer on kinesis-local itself.
//!
//! In: the same calls to both. Out: the same answers, but for numbers that each makes up. Invariant: what the consumer is
//! tested against is what another, independent reading of the service's documentation gives.
#![cfg(feature = "demo")]

mod support {
    pub mod servers;
    pub mod tools;
}

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use support::servers;
use tokio::time::{sleep, timeout};
use trailwarden::{
    demo::endpoint::{Endpoint, Limits, Options},
    lease::{Notices, local::Local},
    metrics::Metrics,
    position::Position,
    source::kinesis::{Config, Consumer, Mode, Start},
};

/// One call; an object with `__status` where it is refused.
async fn call(url: &str, operation: &str, input: &Value) -> Value {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let scope = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=00";
    let ask = http::Request::post(url)
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", scope);
    let answer = client.request(ask.body(Bytes::from(input.to_string()).into()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or(json!({}));
    if status != 200 {
        answer = json!({"__status": status, "__type": answer["__type"]});
    }
    answer
}

/// Keeps what must be equal; of the rest its form.
fn shape(value: &Value, name: &str) -> Value {
    const LITERAL: &[&str] = &[
        "ShardId",
        "ParentShardId",
        "AdjacentParentShardId",
        "ParentShards",
        "Data",
        "PartitionKey",
        "__type",
        "__status",
        "StreamStatus",
        "OpenShardCount",
    ];
    // Told by one of the two only, and both are allowed.
    const OPTIONAL: &[&str] = &["MaxRecordSizeInKiB", "ConsumerStatus", "EncryptionType", "Tags", "NextToken"];
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, v)| !v.is_null() && !OPTIONAL.contains(&name.as_str()));
            let mut kept: Vec<_> = kept.map(|(name, v)| (name.clone(), shape(v, name))).collect();
            kept.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(kept.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(|v| shape(v, name)).collect(),
        literal if LITERAL.contains(&name) => literal.clone(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        other => other.clone(),
    }
}

/// Every call of one script, in order, as shapes.
async fn script(url: &str) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    macro_rules! ask {
        ($operation:expr, $input:tt) => {{
            let answer = call(url, $operation, &json!($input)).await;
            seen.push((format!("{} {}", $operation, json!($input).to_string().replace(&['"'][..], "")), shape(&answer, "")));
            answer
        }};
    }
    // An iterator's own text is not part of the script.
    macro_rules! records {
        ($input:tt) => {{
            let iterator = call(url, "GetShardIterator", &json!($input)).await;
            let answer = call(url, "GetRecords", &json!({"ShardIterator": iterator["ShardIterator"]})).await;
            seen.push((format!("GetRecords {}", json!($input)), shape(&answer, "")));
            answer
        }};
    }
    ask!("CreateStream", {"StreamName": "s", "ShardCount": 2});
    sleep(Duration::from_millis(300)).await;
    ask!("CreateStream", {"StreamName": "s", "ShardCount": 2});
    ask!("DescribeStreamSummary", {"StreamName": "s"});
    ask!("DescribeStreamSummary", {"StreamName": "other"});
    ask!("ListShards", {"StreamName": "s"});
    ask!("ListShards", {"StreamName": "s", "ExclusiveStartShardId": "shardId-000000000000"});
    for n in 0..6 {
        ask!("PutRecord", {"StreamName": "s", "PartitionKey": (n.to_string()), "Data": "AAAA"});
    }
    ask!("PutRecords", {"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": "AAEC"}, {"PartitionKey": "b", "Data": "AA=="}]});
    let first = records!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
    records!({"StreamName": "s", "ShardId": "shardId-000000000001", "ShardIteratorType": "TRIM_HORIZON"});
    records!({"StreamName": "s", "ShardId": "shardId-000000000001", "ShardIteratorType": "LATEST"});
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let sequence = &first["Records"][0]["SequenceNumber"];
        let input = json!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": kind, "StartingSequenceNumber": sequence});
        let iterator = call(url, "GetShardIterator", &input).await;
        let answer = call(url, "GetRecords", &json!({"ShardIterator": iterator["ShardIterator"]})).await;
        seen.push((kind.to_owned(), shape(&answer, "")));
    }
    ask!("GetShardIterator", {"StreamName": "s", "ShardId": "shardId-000000000009", "ShardIteratorType": "LATEST"});
    ask!("SplitShard", {"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "1000"});
    sleep(Duration::from_millis(300)).await;
    records!({"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"});
    ask!("MergeShards", {"StreamName": "s", "ShardToMerge": "shardId-000000000002", "AdjacentShardToMerge": "shardId-000000000003"});
    sleep(Duration::from_millis(300)).await;
    records!({"StreamName": "s", "ShardId": "shardId-000000000002", "ShardIteratorType": "TRIM_HORIZON"});
    ask!("ListShards", {"StreamName": "s"});
    ask!("ListShards", {"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}});
    ask!("ListShards", {"StreamName": "s", "ShardFilter": {"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000002"}});
    ask!("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"});
    sleep(Duration::from_millis(300)).await;
    ask!("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"});
    ask!("DescribeStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"});
    ask!("ListStreamConsumers", {"StreamARN": arn});
    ask!("DescribeStreamConsumer", {"StreamARN": arn, "ConsumerName": "none"});
    ask!("DeregisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "c"});
    sleep(Duration::from_millis(300)).await;
    ask!("DeleteStream", {"StreamName": "s", "EnforceConsumerDeletion": true});
    sleep(Duration::from_millis(300)).await;
    ask!("ListShards", {"StreamName": "s"});
    seen
}

#[tokio::test]
async fn the_embedded_endpoint_answers_as_kinesis_local_does() {
    let Some(real) = servers::kinesis_local() else { return };
    let endpoint = Endpoint::start(Options { limits: Limits::NONE, ..Options::default() }).await.unwrap();
    let (theirs, ours) = tokio::join!(script(&real.url), script(endpoint.url()));
    let different: Vec<_> = theirs.iter().zip(&ours).filter(|(a, b)| a != b).collect();
    for ((call, theirs), (_, ours)) in &different {
        println!("{call}\n  kinesis-local {theirs}\n  embedded      {ours}");
    }
    assert!(different.is_empty(), "{} of {} answers differ", different.len(), theirs.len());
    println!("{} answers alike", theirs.len());
}

async fn put(url: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let data = base64_simd::STANDARD.encode_to_string(n.to_string());
        let answer = call(url, "PutRecord", &json!({"StreamName": "s", "PartitionKey": n.to_string(), "Data": data})).await;
        assert!(answer["SequenceNumber"].is_string(), "{answer}");
    }
}

/// kinesis-local doesn't end a running subscription at a split: there fan-out reads on in the one shard.
async fn read(mode: Mode, split: bool) {
    let Some(real) = servers::kinesis_local() else { return };
    call(&real.url, "CreateStream", &json!({"StreamName": "s", "ShardCount": 1})).await;
    sleep(Duration::from_millis(300)).await;
    put(&real.url, 0..20).await;
    let start = Start(Position::TrimHorizon);
    let streams = vec!["s".to_owned()];
    let config = Config { streams, endpoint: Some(real.url.clone()), mode, start, poll_interval_ms: 200, ..Config::default() };
    let client = trailwarden::source::kinesis::client(&config).await;
    let (sender, _notices) = Notices::channel(16);
    let local = Local::start(&client, &config.streams, &config.start.0, [], &sender);
    let (_consumer, mut batches) = Consumer::start(config, client, local.grants(), sender, &Metrics::new());
    let mut seen = BTreeSet::new();
    for expected in [20, 40] {
        let all = async {
            while seen.len() < expected {
                let batch = batches.recv().await.unwrap();
                seen.extend(batch.records.iter().map(|r| r.data.clone()));
                local.committed(&batch.shard, &batch.through);
            }
        };
        timeout(Duration::from_secs(30), all).await.unwrap();
        if expected == 20 && split {
            let split = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": (1_u128 << 127).to_string()});
            call(&real.url, "SplitShard", &split).await;
            sleep(Duration::from_millis(300)).await;
        }
        if expected == 20 {
            put(&real.url, 20..40).await;
        }
    }
}

#[tokio::test]
async fn polling_reads_kinesis_local() {
    read(Mode::Polling, true).await;
}

#[tokio::test]
async fn fan_out_reads_kinesis_local() {
    read(Mode::FanOut, false).await;
}

#[tokio::test]
async fn reading_starts_at_a_time() {
    let Some(real) = servers::kinesis_local() else { return };
    call(&real.url, "CreateStream", &json!({"StreamName": "s", "ShardCount": 1})).await;
    sleep(Duration::from_millis(300)).await;
    put(&real.url, 0..5).await;
    sleep(Duration::from_millis(1100)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    sleep(Duration::from_millis(1100)).await;
    put(&real.url, 5..10).await;
    for mode in [Mode::Polling, Mode::FanOut] {
        let start = Start(Position::AtTimestamp(now.as_millis() as u64));
        let config =
            Config { streams: vec!["s".to_owned()], endpoint: Some(real.url.clone()), mode, start, poll_interval_ms: 200, ..Config::default() };
        let client = trailwarden::source::kinesis::client(&config).await;
        let (sender, _notices) = Notices::channel(16);
        let local = Local::start(&client, &config.streams, &config.start.0, [], &sender);
        let (_consumer, mut batches) = Consumer::start(config, client, local.grants(), sender, &Metrics::new());
        let mut seen = Vec::new();
        let all = async {
            while !seen.iter().any(|data| data == "9") {
                let batch = batches.recv().await.unwrap();
                seen.extend(batch.records.iter().map(|r| r.data.clone()));
                local.committed(&batch.shard, &batch.through);
            }
        };
        timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(seen, ["5", "6", "7", "8", "9"], "{mode:?}");
    }
}
