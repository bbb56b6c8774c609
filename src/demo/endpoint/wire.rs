//! JSON 1.1 and event-stream framing, written by hand where records pass.
//!
//! In: records and results. Out: bodies. Invariant: every frame carries the two checksums that the SDK verifies.

use std::io::Write as _;

use serde_json::{Value, json};

use super::shard::Stored;

/// An answer that the SDK turns into a typed error.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: u16,
    pub kind: &'static str,
    pub message: String,
}

impl ApiError {
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(400, "ResourceNotFoundException", message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationException", message)
    }

    pub fn throttled(message: impl Into<String>) -> Self {
        Self::new(400, "ProvisionedThroughputExceededException", message)
    }

    pub fn body(&self) -> Vec<u8> {
        json!({"__type": self.kind, "message": self.message}).to_string().into_bytes()
    }
}

/// Required text of a request.
pub fn text<'a>(input: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    input[name].as_str().ok_or_else(|| ApiError::invalid(format!("{name} is missing")))
}

/// The SDK sends timestamps as seconds, with or without a fraction.
pub fn timestamp_ms(value: &Value) -> Option<u64> {
    value.as_f64().map(|s| (s * 1000.0).round() as u64)
}

pub fn seconds(ms: u64) -> Value {
    json!(ms as f64 / 1000.0)
}

/// The `Records` member with its name, as it stands in GetRecords and in SubscribeToShardEvent.
pub fn write_records(out: &mut Vec<u8>, records: &[Stored]) {
    let size: usize = records.iter().map(|r| r.data.len() * 4 / 3 + r.partition_key.len() + 200).sum();
    out.reserve(size + 512);
    out.extend_from_slice(b"\"Records\":[");
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let (s, ms) = (record.arrival_ms / 1000, record.arrival_ms % 1000);
        let _ = write!(out, "{{\"ApproximateArrivalTimestamp\":{s}.{ms:03},\"SequenceNumber\":\"{}\",\"PartitionKey\":", record.sequence);
        let _ = serde_json::to_writer(&mut *out, &record.partition_key);
        out.extend_from_slice(b",\"Data\":\"");
        base64_simd::STANDARD.encode_append(&record.data, out);
        out.extend_from_slice(b"\"}");
    }
    out.push(b']');
}

/// One frame of `application/vnd.amazon.eventstream`.
pub fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    const STRING: u8 = 7;
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(STRING);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = 12 + head.len() + payload.len() + 4;
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&libdeflater::crc32(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&libdeflater::crc32(&out).to_be_bytes());
    out
}

/// An event of SubscribeToShard.
pub fn event(kind: &str, payload: &[u8]) -> Vec<u8> {
    frame(&[(":message-type", "event"), (":event-type", kind), (":content-type", "application/x-amz-json-1.1")], payload)
}

/// The error that ends a subscription.
pub fn exception(error: &ApiError) -> Vec<u8> {
    let headers = [(":message-type", "exception"), (":exception-type", error.kind), (":content-type", "application/x-amz-json-1.1")];
    frame(&headers, &error.body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_layout() {
        let got = frame(&[("a", "b")], b"{}");
        assert_eq!(got.len(), 12 + 6 + 2 + 4);
        assert_eq!(got[..8], [0, 0, 0, 24, 0, 0, 0, 6]);
        assert_eq!(got[8..12], libdeflater::crc32(&got[..8]).to_be_bytes());
        assert_eq!(got[12..20], *b"\x01a\x07\x00\x01b{}");
        assert_eq!(got[20..], libdeflater::crc32(&got[..20]).to_be_bytes());
    }
}
