//! The embedded Kinesis endpoint as the real SDK sees it.
//!
//! In: calls of aws-sdk-kinesis over HTTP. Out: what AWS documents. Invariant: each limit and fault that the consumer must
//! survive can be produced here.
#![cfg(feature = "demo")]

use std::time::{Duration, Instant};

use aws_sdk_kinesis::{
    Client,
    error::ProvideErrorMetadata,
    primitives::{Blob, DateTime},
    types::{PutRecordsRequestEntry, ScalingType, ShardFilter, ShardFilterType, ShardIteratorType, StartingPosition, SubscribeToShardEventStream},
};
use bytes::Bytes;
use trailwarden::demo::endpoint::{Endpoint, Faults, Limits, Options};

async fn start(limits: Limits) -> (Endpoint, Client) {
    let endpoint = Endpoint::start(Options { limits, ..Options::default() }).await.unwrap();
    let client = Client::new(&trailwarden::aws::load(None, Some(endpoint.url())).await);
    (endpoint, client)
}

fn code<E: ProvideErrorMetadata>(outcome: Result<impl Sized, E>) -> String {
    outcome.err().and_then(|e| e.code().map(str::to_owned)).unwrap_or_default()
}

async fn iterator(client: &Client, shard: &str, kind: ShardIteratorType) -> String {
    let answer = client.get_shard_iterator().stream_name("s").shard_id(shard).shard_iterator_type(kind).send().await.unwrap();
    answer.shard_iterator.unwrap()
}

const FIRST: &str = "shardId-000000000000";

#[tokio::test]
async fn records_come_back_in_order_with_lag_and_children() {
    let (endpoint, client) = start(Limits::NONE).await;
    client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    let put = |n: u8| client.put_record().stream_name("s").partition_key(format!("k\"{n}")).data(Blob::new(vec![n; 300])).send();
    let first = put(1).await.unwrap();
    let more = (2..5).map(|n| PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new(vec![n])).build().unwrap()).collect();
    client.put_records().stream_name("s").set_records(Some(more)).send().await.unwrap();
    endpoint.advance(Duration::from_secs(7));

    let got = client.get_records().shard_iterator(iterator(&client, FIRST, ShardIteratorType::TrimHorizon).await).limit(3).send().await.unwrap();
    assert_eq!(got.records.iter().map(|r| r.data.as_ref()[0]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(got.records[0].partition_key.as_deref(), Some("k\"1"));
    assert_eq!(got.records[0].sequence_number, first.sequence_number);
    assert!((7_000..9_000).contains(&got.millis_behind_latest.unwrap()), "{:?}", got.millis_behind_latest);

    client.split_shard().stream_name("s").shard_to_split(FIRST).new_starting_hash_key("9").send().await.unwrap();
    let got = client.get_records().shard_iterator(got.next_shard_iterator.unwrap()).send().await.unwrap();
    assert_eq!((got.records.len(), got.next_shard_iterator, got.millis_behind_latest), (1, None, Some(0)));
    let children: Vec<_> = got.child_shards.unwrap().into_iter().map(|c| (c.shard_id, c.parent_shards)).collect();
    let expected = ["shardId-000000000001", "shardId-000000000002"].map(|id| (id.to_owned(), vec![FIRST.to_owned()]));
    assert_eq!(children, expected);
    client.merge_shards().stream_name("s").shard_to_merge(&children[0].0).adjacent_shard_to_merge(&children[1].0).send().await.unwrap();
    let listed = client.list_shards().stream_name("s").send().await.unwrap().shards.unwrap();
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3].adjacent_parent_shard_id.as_deref(), Some("shardId-000000000002"));
}

#[tokio::test]
async fn iterators_start_where_they_say_and_expire() {
    let (endpoint, client) = start(Limits::NONE).await;
    endpoint.create_stream("s", 1).unwrap();
    let sequences = endpoint.put("s", (0..3).map(|n| (n.to_string(), Bytes::from(vec![n])))).unwrap();
    endpoint.advance(Duration::from_secs(10));
    let between = DateTime::from_millis(endpoint.now_ms() as i64 - 5_000);
    endpoint.put("s", [("x".to_owned(), Bytes::from_static(&[9]))]).unwrap();
    for (kind, expected) in [
        (ShardIteratorType::TrimHorizon, vec![0, 1, 2, 9]),
        (ShardIteratorType::Latest, vec![]),
        (ShardIteratorType::AtSequenceNumber, vec![1, 2, 9]),
        (ShardIteratorType::AfterSequenceNumber, vec![2, 9]),
        (ShardIteratorType::AtTimestamp, vec![9]),
    ] {
        let ask = client.get_shard_iterator().stream_name("s").shard_id(FIRST).shard_iterator_type(kind.clone());
        let ask = ask.starting_sequence_number(&*sequences[1]).timestamp(between);
        let it = ask.send().await.unwrap().shard_iterator.unwrap();
        let got = client.get_records().shard_iterator(it).send().await.unwrap();
        assert_eq!(got.records.iter().map(|r| r.data.as_ref()[0]).collect::<Vec<_>>(), expected, "{kind:?}");
    }
    let it = iterator(&client, FIRST, ShardIteratorType::TrimHorizon).await;
    endpoint.advance(Duration::from_secs(300));
    assert_eq!(code(client.get_records().shard_iterator(it).send().await), "ExpiredIteratorException");
    endpoint.advance(Duration::from_secs(25 * 3600));
    let it = iterator(&client, FIRST, ShardIteratorType::TrimHorizon).await;
    assert!(client.get_records().shard_iterator(it).send().await.unwrap().records.is_empty(), "past retention");
    endpoint.call("DeleteStream", &serde_json::json!({"StreamName": "s"})).unwrap();
    assert_eq!(code(client.list_shards().stream_name("s").send().await), "ResourceNotFoundException");
}

#[tokio::test]
async fn reads_are_limited_as_the_service_does() {
    let (endpoint, client) = start(Limits::AWS).await;
    endpoint.create_stream("s", 2).unwrap();
    let it = iterator(&client, FIRST, ShardIteratorType::Latest).await;
    for _ in 0..5 {
        client.get_records().shard_iterator(&it).send().await.unwrap();
    }
    assert_eq!(code(client.get_records().shard_iterator(&it).send().await), "ProvisionedThroughputExceededException");
    endpoint.put("s", (0..60).map(|n| (n.to_string(), Bytes::from(vec![0; 1 << 19])))).unwrap();
    endpoint.advance(Duration::from_secs(1));
    let it = iterator(&client, FIRST, ShardIteratorType::TrimHorizon).await;
    let got = client.get_records().shard_iterator(it).send().await.unwrap();
    assert_eq!(got.records.len(), 19, "at most 10 MB an answer");
    let next = got.next_shard_iterator.unwrap();
    for (wait_s, expected) in [(4, "ProvisionedThroughputExceededException"), (2, "")] {
        endpoint.advance(Duration::from_secs(wait_s));
        assert_eq!(code(client.get_records().shard_iterator(&next).limit(1).send().await), expected);
    }
}

#[tokio::test]
async fn shards_are_listed_by_filter_and_page() {
    let (endpoint, client) = start(Limits::NONE).await;
    endpoint.create_stream("s", 2).unwrap();
    endpoint.advance(Duration::from_secs(60));
    let scale = client.update_shard_count().stream_name("s").target_shard_count(3).scaling_type(ScalingType::UniformScaling);
    assert_eq!(scale.send().await.unwrap().current_shard_count, Some(2));
    let filtered = async |kind: ShardFilterType| {
        let filter = ShardFilter::builder().r#type(kind).timestamp(DateTime::from_millis(endpoint.now_ms() as i64 - 30_000)).build().unwrap();
        let got = client.list_shards().stream_name("s").shard_filter(filter).send().await.unwrap();
        got.shards.unwrap().iter().map(|s| s.shard_id[18..].to_owned()).collect::<Vec<_>>().join(" ")
    };
    // 0 and 1 were split at the thirds into 2 3 and 4 5, of which the inner two became 6.
    assert_eq!(filtered(ShardFilterType::AtLatest).await, "02 05 06");
    assert_eq!(filtered(ShardFilterType::AtTrimHorizon).await, "00 01");
    assert_eq!(filtered(ShardFilterType::AtTimestamp).await, "00 01");
    assert_eq!(filtered(ShardFilterType::FromTrimHorizon).await, "00 01 02 03 04 05 06");
    let (mut token, mut pages) = (None, Vec::new());
    loop {
        let ask = client.list_shards().max_results(3);
        let ask = if let Some(token) = token { ask.next_token(token) } else { ask.stream_name("s") };
        let got = ask.send().await.unwrap();
        pages.push(got.shards().len());
        token = got.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, [3, 3, 1]);
}

#[tokio::test]
async fn fan_out_pushes_and_hands_over() {
    let (endpoint, client) = start(Limits::NONE).await;
    endpoint.create_stream("s", 1).unwrap();
    let arn = client.describe_stream_summary().stream_name("s").send().await.unwrap().stream_description_summary.unwrap().stream_arn;
    let consumer = client.register_stream_consumer().stream_arn(&arn).consumer_name("c").send().await.unwrap().consumer.unwrap();
    let subscribe = || {
        let from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build().unwrap();
        client.subscribe_to_shard().consumer_arn(consumer.consumer_arn.clone()).shard_id(FIRST).starting_position(from).send()
    };
    endpoint.put("s", [("a".to_owned(), Bytes::from_static(b"one"))]).unwrap();
    let mut first = subscribe().await.unwrap().event_stream;
    // The receiver's type is private to the SDK.
    macro_rules! next {
        ($events:expr) => {
            match $events.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Ok(Some(event)),
                Ok(None) => Ok(None),
                Ok(Some(other)) => panic!("{other:?}"),
                Err(e) => Err(e.into_service_error().code().unwrap().to_owned()),
            }
        };
    }
    let event = next!(first).unwrap().unwrap();
    assert_eq!((event.records[0].data.as_ref(), &event.continuation_sequence_number), (&b"one"[..], &event.records[0].sequence_number));
    endpoint.put("s", [("a".to_owned(), Bytes::from_static(b"two"))]).unwrap();
    loop {
        let event = next!(first).unwrap().unwrap();
        if let [record] = &event.records[..] {
            assert_eq!(record.data.as_ref(), b"two");
            break;
        }
    }
    assert_eq!(code(subscribe().await), "ResourceInUseException", "within 5 s");
    endpoint.advance(Duration::from_secs(5));
    let mut second = subscribe().await.unwrap().event_stream;
    assert_eq!(next!(second).unwrap().unwrap().records.len(), 2);
    let taken_over = loop {
        match next!(first) {
            Ok(Some(_)) => {}
            other => break other.map(drop),
        }
    };
    assert_eq!(taken_over, Err("ResourceInUseException".to_owned()));
    client.split_shard().stream_name("s").shard_to_split(FIRST).new_starting_hash_key("9").send().await.unwrap();
    let last = loop {
        let event = next!(second).unwrap().unwrap();
        if event.child_shards.is_some() {
            break event;
        }
    };
    assert_eq!(last.child_shards.unwrap().len(), 2);
    assert!(next!(second).unwrap().is_none());
    let list = client.list_stream_consumers().stream_arn(&arn).send().await.unwrap();
    assert_eq!(list.consumers.unwrap().len(), 1);
    client.deregister_stream_consumer().stream_arn(&arn).consumer_name("c").send().await.unwrap();
    assert_eq!(code(client.describe_stream_consumer().stream_arn(&arn).consumer_name("c").send().await), "ResourceNotFoundException");
}

#[tokio::test]
async fn faults_come_on_demand() {
    let (endpoint, client) = start(Limits::NONE).await;
    endpoint.create_stream("s", 1).unwrap();
    let it = iterator(&client, FIRST, ShardIteratorType::TrimHorizon).await;
    for (faults, expected) in [
        (Faults { error_rate: 1.0, ..Faults::default() }, "InternalFailure"),
        (Faults { throttle_rate: 1.0, ..Faults::default() }, "ProvisionedThroughputExceededException"),
        (Faults { expired_rate: 1.0, ..Faults::default() }, "ExpiredIteratorException"),
        (Faults { kms_denied: true, ..Faults::default() }, "KMSAccessDeniedException"),
        (Faults::default(), ""),
    ] {
        endpoint.set_faults(faults.clone());
        assert_eq!(code(client.get_records().shard_iterator(&it).send().await), expected, "{faults:?}");
    }
    endpoint.set_faults(Faults { reset_rate: 1.0, ..Faults::default() });
    let error = client.get_records().shard_iterator(&it).send().await.unwrap_err();
    assert!(error.as_service_error().is_none(), "a reset has no answer: {error:?}");
}

/// Prints the endpoint's speed; a bound only against a collapse, for the machine is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_records_is_fast() {
    let (endpoint, _) = start(Limits::NONE).await;
    endpoint.create_stream("s", 1).unwrap();
    endpoint.put("s", (0..600).map(|n| (n.to_string(), Bytes::from(vec![n as u8; 64 << 10])))).unwrap();
    let client: hyper_util::client::legacy::Client<_, http_body_util::Full<Bytes>> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let call = async |operation: &str, body: String| {
        let ask = http::Request::post(endpoint.url()).header("x-amz-target", format!("Kinesis_20131202.{operation}"));
        let answer = client.request(ask.body(Bytes::from(body).into()).unwrap()).await.unwrap();
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes()
    };
    let ask = format!(r#"{{"StreamName":"s","ShardId":"{FIRST}","ShardIteratorType":"TRIM_HORIZON"}}"#);
    let mut it: serde_json::Value = serde_json::from_slice(&call("GetShardIterator", ask).await).unwrap();
    let (since, mut bytes) = (Instant::now(), 0);
    for _ in 0..4 {
        let got = call("GetRecords", it.to_string()).await;
        bytes += got.len() * 3 / 4;
        let at = memchr::memmem::rfind(&got, b"\"NextShardIterator\":\"").unwrap() + 21;
        let end = memchr::memchr(b'"', &got[at..]).unwrap();
        it = serde_json::json!({"ShardIterator": std::str::from_utf8(&got[at..at + end]).unwrap()});
    }
    let mb_per_s = bytes as f64 / 1e6 / since.elapsed().as_secs_f64();
    println!("GetRecords: {mb_per_s:.0} MB/s of payload");
    assert!(mb_per_s > 10.0, "{mb_per_s:.0} MB/s");
}
