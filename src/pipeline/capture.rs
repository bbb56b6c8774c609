//! From a borrowed match to what outlives the event.
//!
//! In: `detect::Match`. Out: its identity, time, place, summary and group, owned. Invariant: a function of the event and its stream
//! alone, so that a replay gives the same.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::Found;
use super::detectors::{Detectors, Piece};
use crate::alert::{Alert, EventRef};
use crate::correlate::Head;
use crate::detect::Match;
use crate::event::{Body, FieldId, Kind, time};
use crate::store::keeper::Single;

/// Values of an array that a summary tells.
const SUMMARY_VALUES: usize = 5;
/// Letters of one value that a summary tells.
const SUMMARY_LETTERS: usize = 200;

/// Two hashes of who an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Of the action: `sharedEventID` before `eventID`, so that copies for several accounts are one.
    pub action: [u8; 16],
    /// Of the event in its account.
    pub event: [u8; 16],
}

fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize()[..16]);
    id
}

impl Detectors {
    /// `occurrence` numbers equal events that have no id, within their stream.
    pub(super) fn identity(&self, found: &Match<'_>, stream: &str, occurrence: &mut dyn FnMut([u8; 16]) -> u32) -> Identity {
        let first = |name| found.first(self.evidence.id(name));
        let context = &found.event.context;
        let own = first("addendum.originalEventID").or(first("eventID"));
        if let (Some(own), true) = (own, found.event.kind != Kind::Log) {
            let account = self.account(found);
            let shared = first("sharedEventID").unwrap_or(own);
            return Identity { action: hash(&[b"event", shared]), event: hash(&[b"event", own, account.as_bytes()]) };
        }
        let event = if context.id.is_empty() {
            let text = match found.event.body {
                Body::Plain(text) | Body::Escaped(text) | Body::Fields { text, .. } => text,
            };
            let plain = hash(&[stream.as_bytes(), text]);
            hash(&[b"bytes", &plain, &occurrence(plain).to_le_bytes()])
        } else {
            hash(&[b"log", context.account.as_bytes(), context.log_group.as_bytes(), context.log_stream.as_bytes(), context.id.as_bytes()])
        };
        Identity { action: event, event }
    }

    /// Adds a match to the batch: as an alert, as evidence, or both.
    pub(super) fn keep(&self, found: &Match<'_>, identity: &Identity, arrival_ms: i64, batch: &mut Found<'_>) {
        let capture = &self.captures[found.rule];
        let time_ms = self.time_ms(found, arrival_ms);
        let summary = summary(found, &capture.summary);
        let account = self.account(found);
        let region = self.text(found, "awsRegion", found.event.context.region);
        let event = self.event_ref(found, time_ms);
        for (feed, fields) in &capture.feeds {
            batch.inputs.push(Head {
                feed: *feed,
                time_ms,
                arrival_ms: if arrival_ms == 0 { time_ms } else { arrival_ms },
                identity: identity.action,
                account: &account,
                region: &region,
                event_id: &event.id,
                source: &event.source,
                name: &event.name,
                summary: &summary,
            });
            for field in fields {
                batch.inputs.field(found.all(*field).filter_map(|text| std::str::from_utf8(text).ok()));
            }
            batch.input_events.push(batch.event);
        }
        if capture.alerts {
            let group = capture.group.iter().map(|(name, field)| {
                let mut value = String::new();
                tell(found, *field, &mut value);
                (name.clone(), value)
            });
            let group = group.collect();
            let rule = self.infos[found.rule].clone();
            let (id, incident) = (String::new(), String::new());
            let alert = Alert {
                id,
                incident,
                time_ms,
                rule,
                account,
                region,
                group,
                summary,
                events: vec![event],
                count: 1,
                late: false,
                resolved: false,
                arrived_ms: arrival_ms,
            };
            batch.singles.push((batch.event, Single { alert, identity: identity.event, organization: capture.organization }));
        }
        batch.undated |= found.first(self.evidence.id("eventTime")).and_then(time::parse).is_none() && found.event.kind != Kind::Log;
        *batch.newest_ms = (*batch.newest_ms).max(time_ms);
        batch.time_ms = batch.time_ms.max(time_ms);
        if batch.rule_matches.len() <= found.rule {
            batch.rule_matches.resize(found.rule + 1, 0);
        }
        batch.rule_matches[found.rule] += 1;
    }

    fn text(&self, found: &Match<'_>, name: &str, otherwise: &str) -> String {
        found.first(self.evidence.id(name)).map_or_else(|| otherwise.to_owned(), |t| String::from_utf8_lossy(t).into_owned())
    }

    fn account(&self, found: &Match<'_>) -> String {
        let name = if found.first(self.evidence.id("recipientAccountId")).is_some() { "recipientAccountId" } else { "userIdentity.accountId" };
        self.text(found, name, found.event.context.account)
    }

    fn time_ms(&self, found: &Match<'_>, arrival_ms: i64) -> i64 {
        let written = found.first(self.evidence.id("eventTime")).and_then(time::parse);
        let envelope = Some(found.event.context.time_ms).filter(|t| *t != 0);
        written.or(envelope).unwrap_or(arrival_ms)
    }

    fn event_ref(&self, found: &Match<'_>, time_ms: i64) -> EventRef {
        let context = &found.event.context;
        EventRef {
            id: self.text(found, "eventID", context.id),
            time: time::format(time_ms),
            source: self.text(found, "eventSource", context.log_group),
            name: found
                .first(self.evidence.id("eventName"))
                .or(found.first(self.evidence.id("db.event")))
                .map_or_else(|| found.event.logsource.service.to_owned(), |name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

fn summary(found: &Match<'_>, pieces: &[Piece]) -> String {
    let mut summary = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => summary.push_str(text),
            Piece::FirstOf(fields) => {
                let told = fields.iter().find(|f| found.first(**f).is_some_and(|text| !text.is_empty())).or(fields.first());
                told.into_iter().for_each(|field| tell(found, *field, &mut summary));
            }
        }
    }
    summary
}

/// The values of a field as a person reads them.
fn tell(found: &Match<'_>, field: FieldId, out: &mut String) {
    let mut values = found.all(field).peekable();
    if values.peek().is_none() {
        out.push('-');
    }
    for (at, value) in values.by_ref().take(SUMMARY_VALUES).enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        let text = String::from_utf8_lossy(value);
        let end = text.char_indices().nth(SUMMARY_LETTERS).map_or(text.len(), |(end, _)| end);
        out.push_str(&text[..end]);
        if end < text.len() {
            out.push('…');
        }
    }
    let more = values.count();
    if more > 0 {
        let _ = write!(out, " and {more} more");
    }
}
