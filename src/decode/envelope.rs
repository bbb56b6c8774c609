//! CloudWatch Logs subscription payloads.
//!
//! In: `{"messageType":…,"owner":…,"logGroup":…,"logStream":…,"logEvents":[…]}`. Out: one item for each log event, read in place
//! where the payload looks as the service writes it. Invariant: a payload in any other order or spelling gives the same items.

use super::document::cloudtrail;
use super::top::{self, Members};
use super::{Decoder, Defect, Item, LeftOut, Reason, Sink};
use crate::event::scan::{self, Level, string_end};
use crate::event::{Body, Context, Known, Routing, json};

/// How the service begins each log event; anything else goes the general way.
const ID_LEAD: &[u8] = br#"{"id":""#;
const TIME_LEAD: &[u8] = br#"","timestamp":"#;
const MESSAGE_LEAD: &[u8] = br#","message":""#;
/// That an `i64` holds whatever they are.
const MAX_DIGITS: usize = 18;

/// How a log event that carries a CloudTrail record begins, and how far into the first one that is looked for.
const RECORD_LEAD: &[u8] = br#""message":"{\"eventVersion\":"#;
const HEAD_BYTES: usize = 256;

/// A log event's members, raw.
#[derive(Default, Clone, Copy)]
pub(super) struct LogEvent<'a> {
    pub id: &'a str,
    pub time_ms: i64,
    /// The message's content, escapes in place.
    pub message: Option<&'a [u8]>,
    pub extracted: Option<&'a [u8]>,
}

impl Decoder {
    /// A payload at `data[at]` whose members come in the service's order; the index behind it. On any surprise before the first log
    /// event it gives up with nothing told to the sink.
    pub(super) fn envelope(&mut self, data: &[u8], at: usize, nesting: usize, sink: &mut Sink<'_>) -> Result<usize, json::Malformed> {
        let mut members = Members::new(data, at);
        let mut context = Context::default();
        let mut message_type = "";
        let events_at = loop {
            let member = members.next_key()?.ok_or(json::Malformed { at })?;
            if member.key == b"logEvents" && !context.log_group.is_empty() && data.get(member.value_at) == Some(&b'[') {
                break member.value_at;
            }
            let text = top::plain_text(Some(members.skip_value(&member)?));
            match member.key {
                b"messageType" => message_type = text,
                b"owner" => context.account = text,
                b"logGroup" => context.log_group = text,
                b"logStream" => context.log_stream = text,
                b"subscriptionFilters" | b"policyLevel" => {}
                _ => return Err(json::Malformed { at: member.value_at }),
            }
        };
        // Text logs are read as a whole, the general way.
        let head = &data[events_at..data.len().min(events_at + HEAD_BYTES)];
        let is_log = memchr::memmem::find(head, RECORD_LEAD).is_none() && self.route_of(&context, &data[events_at..]).is_some();
        if message_type != "DATA_MESSAGE" || is_log {
            return Err(json::Malformed { at });
        }
        let end = self.events_in_place(data, events_at, &context, nesting, sink);
        // What the service adds behind the events is of no use here.
        let closed = end.and_then(|end| {
            members.at = end;
            while let Some(member) = members.next_key()? {
                members.skip_value(&member)?;
            }
            Ok(members.at)
        });
        Ok(closed.unwrap_or_else(|json::Malformed { at }| {
            let at = at.min(data.len());
            sink(Item::Defect(Defect { reason: Reason::Json, at, bytes: &data[at..] }));
            data.len()
        }))
    }

    /// The array at `data[at]`; the index behind it.
    fn events_in_place(
        &mut self,
        data: &[u8],
        at: usize,
        context: &Context<'_>,
        nesting: usize,
        sink: &mut Sink<'_>,
    ) -> Result<usize, json::Malformed> {
        let mut at = at + 1;
        loop {
            match data.get(at) {
                Some(b']') => return Ok(at + 1),
                Some(b',' | b' ' | b'\n' | b'\r' | b'\t') => at += 1,
                Some(b'{') => {
                    at = match self.fast_event(data, at, context, nesting, sink) {
                        Some(end) => end,
                        None => {
                            let end = json::skip(data, at)?;
                            self.log_event(&data[at..end], context, nesting, sink)?;
                            end
                        }
                    }
                }
                _ => return Err(json::Malformed { at }),
            }
        }
    }

    /// A log event just as the service writes it. `None`: not so, and nothing was told to the sink.
    #[inline]
    fn fast_event(&mut self, data: &[u8], at: usize, context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) -> Option<usize> {
        let rest = data[at..].strip_prefix(ID_LEAD)?;
        let id = &rest[..memchr::memchr2(b'"', b'\\', &rest[..rest.len().min(80)])?];
        let rest = rest[id.len()..].strip_prefix(TIME_LEAD)?;
        let (time_ms, rest) = digits(rest)?;
        let rest = rest.strip_prefix(MESSAGE_LEAD)?;
        let start = data.len() - rest.len();
        let id = std::str::from_utf8(id).ok()?;
        let context = Context { id, time_ms, ..*context };
        if rest.first() == Some(&b'{') {
            let scanned = scan::scan(data, start, Level::Escaped)?;
            let routed = matches!((scanned.routing.event_source, scanned.routing.event_name), (Known::Text { .. }, Known::Text { .. }));
            if scanned.whole && routed && data.get(scanned.end + 1) == Some(&b'}') {
                sink(Item::Event(cloudtrail(Body::Escaped(&data[start..scanned.end]), scanned.routing, context)));
                return Some(scanned.end + 2);
            }
        }
        let end = string_end(data, start)?;
        if data.get(end + 1) != Some(&b'}') {
            return None;
        }
        self.message(&data[start..end], &context, nesting, sink);
        Some(end + 2)
    }

    /// The array of log events of a payload in whatever order.
    pub(super) fn log_events(
        &mut self,
        text: &[u8],
        context: &Context<'_>,
        events: &[u8],
        nesting: usize,
        sink: &mut Sink<'_>,
    ) -> Result<(), json::Malformed> {
        if top::plain_text(top::member(text, "messageType")) == "CONTROL_MESSAGE" {
            sink(Item::Left(LeftOut::ControlMessage));
            return Ok(());
        }
        if let Some(route) = self.route_of(context, events) {
            return self.log_messages(&route, events, context, sink);
        }
        for element in top::elements(events) {
            self.log_event(element, context, nesting, sink)?;
        }
        Ok(())
    }

    fn log_event(&mut self, element: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) -> Result<(), json::Malformed> {
        let event = LogEvent::read(element)?;
        let Some(message) = event.message else {
            sink(Item::Defect(Defect { reason: Reason::Unknown, at: 0, bytes: element }));
            return Ok(());
        };
        let mut context = Context { id: event.id, time_ms: event.time_ms, ..*context };
        if let Some(extracted) = event.extracted {
            // Where logs of many accounts are gathered in one, only this names the account that they came from.
            for (name, place) in [("@aws.account", &mut context.account), ("@aws.region", &mut context.region)] {
                let value = top::plain_text(top::member(extracted, name));
                if !value.is_empty() {
                    *place = value;
                }
            }
        }
        self.message(message, &context, nesting, sink);
        Ok(())
    }

    /// A message's content, escapes in place.
    fn message(&mut self, content: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        if content.first() == Some(&b'{')
            && let Some(routing) = whole_record(content)
        {
            sink(Item::Event(cloudtrail(Body::Escaped(content), routing, *context)));
            return;
        }
        if matches!(content.trim_ascii_start().first(), Some(b'{' | b'[')) {
            self.unescaped(content, context, nesting, sink);
            return;
        }
        let mut plain = self.take();
        plain.clear();
        json::unescape(content, &mut plain);
        Self::unknown_message(&plain, context, sink);
        self.give(plain);
    }
}

/// A number without sign, and what follows it.
#[inline]
fn digits(text: &[u8]) -> Option<(i64, &[u8])> {
    let digit = |byte: &u8| i64::from(byte.wrapping_sub(b'0'));
    let count = text.iter().take(MAX_DIGITS).position(|byte| digit(byte) > 9).filter(|count| *count > 0)?;
    let (digits, rest) = text.split_at(count);
    Some((digits.iter().fold(0, |number, byte| number * 10 + digit(byte)), rest))
}

/// The routing of a text that is one CloudTrail record.
fn whole_record(content: &[u8]) -> Option<Routing> {
    let mut quoted = Vec::with_capacity(content.len() + 1);
    quoted.extend_from_slice(content);
    quoted.push(b'"');
    let scanned = scan::scan(&quoted, 0, Level::Escaped)?;
    let routed = matches!((scanned.routing.event_source, scanned.routing.event_name), (Known::Text { .. }, Known::Text { .. }));
    (scanned.whole && routed).then_some(scanned.routing)
}

impl<'a> LogEvent<'a> {
    pub fn read(element: &'a [u8]) -> Result<Self, json::Malformed> {
        let mut event = Self::default();
        if !element.starts_with(b"{") {
            return Ok(event);
        }
        let mut members = Members::new(element, 0);
        while let Some(member) = members.next_key()? {
            let value = members.skip_value(&member)?;
            match member.key {
                b"id" => event.id = top::plain_text(Some(value)),
                b"timestamp" => event.time_ms = std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()).unwrap_or(0),
                b"message" => event.message = top::string_content(value),
                b"extractedFields" => event.extracted = Some(value),
                _ => {}
            }
        }
        Ok(event)
    }
}
