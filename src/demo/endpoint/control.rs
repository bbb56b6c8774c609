//! The calls that make, describe and reshape streams, and the writes.
//!
//! In: one request's JSON. Out: the answer's JSON. Invariant: an unknown operation is an error, never an empty answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Shared,
    fan_out::names_in,
    shard::{Consumer, Shard, Stream, hash_of},
    wire::{ApiError, seconds, text, timestamp_ms},
};

const MAX_LISTED: usize = 10_000;

type Answer = Result<Value, ApiError>;

/// The name in StreamName, or at the end of StreamARN.
pub fn stream_name(input: &Value) -> Result<&str, ApiError> {
    let of_arn = || input["StreamARN"].as_str().and_then(|arn| arn.split_once(":stream/")).map(|(_, name)| name);
    input["StreamName"].as_str().or_else(of_arn).ok_or_else(|| ApiError::invalid("StreamName or StreamARN is missing"))
}

fn arn(shared: &Shared, stream: &str) -> String {
    format!("arn:aws:kinesis:{}:{}:stream/{stream}", shared.region, shared.account)
}

fn find<'a>(streams: &'a mut BTreeMap<String, Stream>, name: &str, account: &str) -> Result<&'a mut Stream, ApiError> {
    streams.get_mut(name).ok_or_else(|| ApiError::not_found(format!("Stream {name} under account {account} not found.")))
}

/// Answers everything but GetShardIterator, GetRecords and SubscribeToShard.
pub fn call(shared: &Shared, operation: &str, input: &Value) -> Answer {
    let now_ms = shared.clock.now_ms();
    let mut streams = shared.streams.lock().expect("no holder panics");
    match operation {
        "CreateStream" => {
            let name = text(input, "StreamName")?;
            if streams.contains_key(name) {
                return Err(ApiError::new(400, "ResourceInUseException", format!("Stream {name} already exists.")));
            }
            let count = input["ShardCount"].as_u64().unwrap_or(4) as u32;
            streams.insert(name.to_owned(), Stream::new(now_ms, count, shared.retain_bytes));
            return Ok(json!({}));
        }
        "ListStreams" => {
            let names: Vec<_> = streams.keys().collect();
            return Ok(json!({"StreamNames": names, "HasMoreStreams": false}));
        }
        "DescribeStreamConsumer" | "DeregisterStreamConsumer" => return one_consumer(shared, &mut streams, operation, input),
        "ListShards" if input["NextToken"].is_string() => {
            let (name, after) =
                text(input, "NextToken")?.split_once('/').ok_or_else(|| ApiError::new(400, "ExpiredNextTokenException", "bad token"))?;
            let mut input = input.clone();
            input["ExclusiveStartShardId"] = json!(after);
            let name = name.to_owned();
            return list_shards(&name, find(&mut streams, &name, &shared.account)?, &input, now_ms);
        }
        _ => {}
    }
    match operation {
        "PutRecord" | "PutRecords" => put(shared, &mut streams, operation, input),
        "SplitShard" | "MergeShards" | "UpdateShardCount" => reshape(shared, &mut streams, operation, input),
        _ => on_stream(shared, &mut streams, operation, input),
    }
}

/// The calls about one stream as a whole.
fn on_stream(shared: &Shared, streams: &mut BTreeMap<String, Stream>, operation: &str, input: &Value) -> Answer {
    let now_ms = shared.clock.now_ms();
    let name = stream_name(input)?;
    let arn = arn(shared, name);
    let stream = find(streams, name, &shared.account)?;
    match operation {
        "DeleteStream" => {
            streams.remove(name);
            Ok(json!({}))
        }
        "DescribeStreamSummary" => Ok(json!({"StreamDescriptionSummary": {
            "StreamName": name, "StreamARN": arn, "StreamStatus": "ACTIVE", "RetentionPeriodHours": stream.retention_hours,
            "StreamCreationTimestamp": seconds(stream.created_ms), "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "OpenShardCount": stream.open_count(), "ConsumerCount": stream.consumers.len(), "EncryptionType": "NONE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"}, "MaxRecordSizeInKiB": stream.max_record_bytes >> 10,
        }})),
        "ListShards" => list_shards(name, stream, input, now_ms),
        "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => {
            stream.retention_hours = input["RetentionPeriodHours"].as_u64().ok_or_else(|| ApiError::invalid("RetentionPeriodHours is missing"))?;
            Ok(json!({}))
        }
        "UpdateMaxRecordSize" => {
            let kib = input["MaxRecordSizeInKiB"].as_u64().filter(|k| (1024..=10_240).contains(k));
            let kib = kib.ok_or_else(|| ApiError::invalid("MaxRecordSizeInKiB is not within 1024 and 10240"))?;
            stream.max_record_bytes = (kib as usize) << 10;
            Ok(json!({}))
        }
        "RegisterStreamConsumer" => register(stream, &arn, text(input, "ConsumerName")?, now_ms),
        "ListStreamConsumers" => {
            let all: Vec<_> = stream.consumers.iter().map(|(name, c)| consumer_json(name, c)).collect();
            Ok(json!({"Consumers": all}))
        }
        other => Err(ApiError::new(400, "UnknownOperationException", format!("{other} is not served here"))),
    }
}

fn put(shared: &Shared, streams: &mut BTreeMap<String, Stream>, operation: &str, input: &Value) -> Answer {
    let now_ms = shared.clock.now_ms();
    let stream = find(streams, stream_name(input)?, &shared.account)?;
    if operation == "PutRecord" {
        let (shard, sequence) = put_one(stream, input, now_ms)?;
        return Ok(json!({"ShardId": shard, "SequenceNumber": sequence, "EncryptionType": "NONE"}));
    }
    let records = input["Records"].as_array().filter(|r| r.len() <= 500).ok_or_else(|| ApiError::invalid("Records: 1 to 500 are taken"))?;
    let put = |r| put_one(stream, r, now_ms).map(|(shard, sequence)| json!({"ShardId": shard, "SequenceNumber": sequence}));
    let answers = records.iter().map(put).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"FailedRecordCount": 0, "Records": answers}))
}

fn reshape(shared: &Shared, streams: &mut BTreeMap<String, Stream>, operation: &str, input: &Value) -> Answer {
    let now_ms = shared.clock.now_ms();
    let name = stream_name(input)?;
    let stream = find(streams, name, &shared.account)?;
    match operation {
        "SplitShard" => {
            let at = text(input, "NewStartingHashKey")?.parse().map_err(|_| ApiError::invalid("NewStartingHashKey is not a number"))?;
            stream.split(now_ms, text(input, "ShardToSplit")?, at).map(|()| json!({}))
        }
        "MergeShards" => stream.merge(now_ms, text(input, "ShardToMerge")?, text(input, "AdjacentShardToMerge")?).map(|()| json!({})),
        _ => {
            let target = input["TargetShardCount"].as_u64().filter(|n| *n > 0).ok_or_else(|| ApiError::invalid("TargetShardCount is missing"))?;
            let before = stream.open_count();
            stream.scale(now_ms, target as u32)?;
            Ok(json!({"StreamName": name, "StreamARN": arn(shared, name), "CurrentShardCount": before, "TargetShardCount": target}))
        }
    }
}

fn put_one(stream: &mut Stream, input: &Value, now_ms: u64) -> Result<(String, Box<str>), ApiError> {
    let key = text(input, "PartitionKey")?;
    let data = base64_simd::STANDARD.decode_to_vec(text(input, "Data")?).map_err(|_| ApiError::invalid("Data is not base64"))?;
    if data.len() + key.len() > stream.max_record_bytes {
        return Err(ApiError::invalid(format!("a record of {} bytes is over the stream's {}", data.len() + key.len(), stream.max_record_bytes)));
    }
    let hash = input["ExplicitHashKey"].as_str().and_then(|h| h.parse().ok()).unwrap_or_else(|| hash_of(key));
    let (shard, sequence) = stream.put(now_ms, key, hash, Bytes::from(data));
    Ok((stream.shards[shard as usize].id.clone(), sequence))
}

fn shard_json(stream: &Stream, shard: &Shard) -> Value {
    let (low, high) = shard.range;
    let first = stream.sequence_at(shard, shard.first_index, shard.created_ms);
    let mut out = json!({
        "ShardId": shard.id,
        "HashKeyRange": {"StartingHashKey": low.to_string(), "EndingHashKey": high.to_string()},
        "SequenceNumberRange": {"StartingSequenceNumber": first},
    });
    if let (Some(index), Some(closed_ms)) = (shard.last_index, shard.closed_ms) {
        out["SequenceNumberRange"]["EndingSequenceNumber"] = json!(stream.sequence_at(shard, index, closed_ms));
    }
    for (name, parent) in ["ParentShardId", "AdjacentParentShardId"].iter().zip(&shard.parents) {
        out[*name] = json!(stream.shards[*parent as usize].id);
    }
    out
}

fn list_shards(name: &str, stream: &Stream, input: &Value, now_ms: u64) -> Answer {
    let filter = &input["ShardFilter"];
    let horizon_ms = stream.horizon_ms(now_ms).max(stream.created_ms);
    let at_ms = || timestamp_ms(&filter["Timestamp"]).map(|t| t.max(horizon_ms)).ok_or_else(|| ApiError::invalid("ShardFilter.Timestamp is missing"));
    let open_at = |s: &Shard, at_ms: u64| s.created_ms <= at_ms && s.closed_ms.is_none_or(|closed| closed > at_ms);
    let closed_from = |s: &Shard, at_ms: u64| s.closed_ms.is_none_or(|closed| closed >= at_ms);
    let mut kept: Vec<&Shard> = stream.shards.iter().filter(|s| stream.is_listed(s, now_ms)).collect();
    match filter["Type"].as_str() {
        None | Some("FROM_TRIM_HORIZON") => {}
        Some("AFTER_SHARD_ID") => {
            let after = text(filter, "ShardId")?;
            kept.retain(|s| s.id.as_str() > after);
        }
        Some("AT_LATEST") => kept.retain(|s| s.is_open()),
        Some("AT_TRIM_HORIZON") => kept.retain(|s| open_at(s, horizon_ms)),
        Some("AT_TIMESTAMP") => {
            let at_ms = at_ms()?;
            kept.retain(|s| open_at(s, at_ms));
        }
        Some("FROM_TIMESTAMP") => {
            let at_ms = at_ms()?;
            kept.retain(|s| closed_from(s, at_ms));
        }
        Some(other) => return Err(ApiError::invalid(format!("ShardFilter.Type {other} is unknown"))),
    }
    if let Some(after) = input["ExclusiveStartShardId"].as_str() {
        kept.retain(|s| s.id.as_str() > after);
    }
    let page = input["MaxResults"].as_u64().map_or(MAX_LISTED, |n| (n as usize).clamp(1, MAX_LISTED));
    let more = kept.len() > page;
    kept.truncate(page);
    let mut out = json!({"Shards": kept.iter().map(|s| shard_json(stream, s)).collect::<Vec<_>>()});
    if let (true, Some(last)) = (more, kept.last()) {
        out["NextToken"] = json!(format!("{name}/{}", last.id));
    }
    Ok(out)
}

fn consumer_json(name: &str, consumer: &Consumer) -> Value {
    let (arn, created) = (&consumer.arn, seconds(consumer.created_ms));
    json!({"ConsumerName": name, "ConsumerARN": arn, "ConsumerStatus": "ACTIVE", "ConsumerCreationTimestamp": created})
}

fn register(stream: &mut Stream, arn: &str, name: &str, now_ms: u64) -> Answer {
    if stream.consumers.contains_key(name) {
        return Err(ApiError::new(400, "ResourceInUseException", format!("Consumer {name} already exists.")));
    }
    let arn = format!("{arn}/consumer/{name}:{}", now_ms / 1000);
    let consumer = Consumer { arn, created_ms: now_ms, subscriptions: BTreeMap::new() };
    let out = json!({"Consumer": consumer_json(name, &consumer)});
    stream.consumers.insert(name.to_owned(), consumer);
    Ok(out)
}

/// Describe or deregister, by ConsumerARN or by StreamARN and ConsumerName.
fn one_consumer(shared: &Shared, streams: &mut BTreeMap<String, Stream>, operation: &str, input: &Value) -> Answer {
    let (stream_name, consumer) = match input["ConsumerARN"].as_str().and_then(names_in) {
        Some((stream, consumer)) => (stream, consumer),
        None => (stream_name(input)?, text(input, "ConsumerName")?),
    };
    let stream = find(streams, stream_name, &shared.account)?;
    let unknown = || ApiError::not_found(format!("Consumer {consumer} does not exist"));
    if operation == "DeregisterStreamConsumer" {
        stream.consumers.remove(consumer).ok_or_else(unknown)?;
        return Ok(json!({}));
    }
    let found = stream.consumers.get(consumer).ok_or_else(unknown)?;
    let mut out = consumer_json(consumer, found);
    out["StreamARN"] = json!(arn(shared, stream_name));
    Ok(json!({"ConsumerDescription": out}))
}
