//! Times as logs write them.
//!
//! In: text. Out: milliseconds since the epoch. Invariant: text without a zone is UTC.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// RFC 3339, with `T` or a blank, with or without a zone.
pub fn parse(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil: DateTime = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok().map(|t| t.as_millisecond())
}

/// RFC 3339 in UTC, to the second where the milliseconds are 0.
pub fn format(time_ms: i64) -> String {
    Timestamp::from_millisecond(time_ms).map_or_else(|_| format!("{time_ms}ms"), |t| t.to_string())
}

/// The civil date and time in UTC.
pub fn civil(time_ms: i64) -> Option<DateTime> {
    Timestamp::from_millisecond(time_ms).ok().map(|t| TimeZone::UTC.to_datetime(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_the_same_time() {
        for text in ["2024-11-25T17:51:21Z", "2024-11-25 17:51:21.000000000", "2024-11-25 17:51:21+00", "2024-11-25T17:51:21"] {
            assert_eq!(parse(text.as_bytes()), Some(1_732_557_081_000), "{text}");
        }
        assert_eq!(parse(b"yesterday"), None);
        assert_eq!(format(1_732_557_081_000), "2024-11-25T17:51:21Z");
    }
}
