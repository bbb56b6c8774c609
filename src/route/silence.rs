//! Quiet on purpose: silences that people set, and maintenance windows of the config.
//!
//! In: a request or a window's config. Out: whether an instant is covered. Invariant: every silence ends by itself, has a
//! reason and says what it covers.

use serde::{Deserialize, Serialize};

use super::Matcher;
use crate::alert::Alert;

const MAX_SILENCE_MS: i64 = 30 * 24 * 3_600_000;
const TEXT_CHARS: usize = 500;
const DAY_MS: i64 = 24 * 3_600_000;

/// What a person asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    #[serde(rename = "match")]
    pub matching: Matcher,
    /// From now.
    pub seconds: u64,
    pub reason: String,
    /// Who asks; free text.
    #[serde(default)]
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub id: String,
    #[serde(rename = "match")]
    pub matching: Matcher,
    pub starts_ms: i64,
    pub ends_ms: i64,
    pub reason: String,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceError {
    #[error("say what the silence covers: `match` needs at least one key")]
    Everything,
    #[error("say why: `reason` is empty")]
    NoReason,
    #[error("`seconds` must lie between 1 and 2592000 (30 days)")]
    Span,
    #[error("`{0}` is longer than 500 characters")]
    Long(&'static str),
    #[error("no silence has the id `{0}`")]
    Unknown(String),
}

impl Silence {
    /// `id`: unique, chosen by the caller.
    pub fn new(id: String, request: SilenceRequest, now_ms: i64) -> Result<Self, SilenceError> {
        if request.matching.is_empty() {
            return Err(SilenceError::Everything);
        }
        if request.reason.trim().is_empty() {
            return Err(SilenceError::NoReason);
        }
        for (name, text) in [("reason", &request.reason), ("by", &request.by)] {
            if text.chars().count() > TEXT_CHARS {
                return Err(SilenceError::Long(name));
            }
        }
        let span_ms = i64::try_from(request.seconds).ok().and_then(|s| s.checked_mul(1000)).filter(|ms| (1..=MAX_SILENCE_MS).contains(ms));
        let ends_ms = now_ms.saturating_add(span_ms.ok_or(SilenceError::Span)?);
        Ok(Self { id, matching: request.matching, starts_ms: now_ms, ends_ms, reason: request.reason, by: request.by })
    }

    pub fn covers(&self, alert: &Alert, now_ms: i64) -> bool {
        (self.starts_ms..self.ends_ms).contains(&now_ms) && self.matching.matches(alert)
    }
}

/// A maintenance window: either `starts` and `ends`, or `from` and `to` with or without `days`. All in UTC.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// Shown beside what the window silenced.
    pub reason: String,
    /// Which alerts; left out: all.
    #[serde(default, rename = "match")]
    pub matching: Matcher,
    /// RFC 3339, for a window that opens once.
    #[serde(default)]
    pub starts: Option<String>,
    /// RFC 3339, for a window that opens once.
    #[serde(default)]
    pub ends: Option<String>,
    /// `mon` … `sun`: the days on which it opens; left out: every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// `HH:MM`, for a window that comes back.
    #[serde(default)]
    pub from: Option<String>,
    /// `HH:MM`; not after `from` means on the next day.
    #[serde(default)]
    pub to: Option<String>,
}

/// A checked window.
#[derive(Debug, Clone)]
pub struct Window {
    pub reason: String,
    pub matching: Matcher,
    span: Span,
}

#[derive(Debug, Clone)]
enum Span {
    Once {
        starts_ms: i64,
        ends_ms: i64,
    },
    /// `days[0]` is Thursday, as the epoch's first day was.
    Weekly {
        days: [bool; 7],
        from_ms: i64,
        length_ms: i64,
    },
}

const WEEK: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

impl Window {
    pub fn new(config: &WindowConfig) -> Result<Self, String> {
        let span = match (&config.starts, &config.ends, &config.from, &config.to) {
            (Some(starts), Some(ends), None, None) if config.days.is_empty() => {
                let (starts_ms, ends_ms) = (instant(starts)?, instant(ends)?);
                if starts_ms >= ends_ms {
                    return Err("`ends` is not after `starts`".into());
                }
                Span::Once { starts_ms, ends_ms }
            }
            (None, None, Some(from), Some(to)) => weekly(&config.days, from, to)?,
            _ => return Err("give either `starts` and `ends` or `from` and `to` (with `days`, if not every day)".into()),
        };
        if config.reason.trim().is_empty() {
            return Err("say why: `reason` is empty".into());
        }
        Ok(Self { reason: config.reason.clone(), matching: config.matching.clone(), span })
    }

    pub fn is_open(&self, now_ms: i64) -> bool {
        match &self.span {
            Span::Once { starts_ms, ends_ms } => (*starts_ms..*ends_ms).contains(&now_ms),
            Span::Weekly { days, from_ms, length_ms } => {
                let today = now_ms.div_euclid(DAY_MS);
                // The one that opened today, and the one of yesterday that may last over midnight.
                [today, today - 1].iter().any(|day| {
                    let opens_ms = day * DAY_MS + from_ms;
                    days[day.rem_euclid(7) as usize] && (opens_ms..opens_ms + length_ms).contains(&now_ms)
                })
            }
        }
    }
}

fn weekly(names: &[String], from: &str, to: &str) -> Result<Span, String> {
    let mut days = [names.is_empty(); 7];
    for name in names {
        let short = name.to_ascii_lowercase();
        let day = WEEK.iter().position(|d| *d == short).ok_or_else(|| format!("`{name}` is no day: mon, tue, wed, thu, fri, sat, sun"))?;
        days[day] = true;
    }
    let (from_ms, to_ms) = (time_of_day(from)?, time_of_day(to)?);
    let length_ms = if to_ms > from_ms { to_ms - from_ms } else { to_ms + DAY_MS - from_ms };
    Ok(Span::Weekly { days, from_ms, length_ms })
}

fn instant(text: &str) -> Result<i64, String> {
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).map_err(|_| format!("`{text}` is no time like 2026-01-31T02:00:00Z"))
}

fn time_of_day(text: &str) -> Result<i64, String> {
    let parsed = text.split_once(':').and_then(|(h, m)| Some((h.parse::<i64>().ok()?, m.parse::<i64>().ok()?)));
    match parsed {
        Some((hour @ 0..=23, minute @ 0..=59)) => Ok((hour * 60 + minute) * 60_000),
        _ => Err(format!("`{text}` is no time of day like 02:30")),
    }
}
