//! Text logs: messages of one CloudWatch Logs payload, or a file's lines, to events.
//!
//! In: messages in their envelope's order, or plain text. Out: events with the fields of `log::tax`. Invariant: a message of no known
//! format is an event too, with its text and no fields, where an envelope says that it is a log event.

use super::log::{self, Batch, LogEvent, Piece, Route};
use super::{Decoder, Item, Sink, top};
use crate::event::{Body, Context, Event, Kind, LogSource, Routing, json};

/// Fields of one log event; the taxonomy has fewer.
const FIELDS: usize = 80;
/// What is looked at to tell a format.
const FIRST_BYTES: usize = 4096;

/// One message of a payload.
struct Message<'a> {
    id: &'a str,
    /// Where logs of many accounts are gathered in one, the account and region that it came from; else empty.
    account: &'a str,
    region: &'a str,
    piece: Piece,
}

impl Decoder {
    /// The log that a payload's first message belongs to. JSON in groups of no database is left to the general way.
    pub(super) fn route_of(&mut self, context: &Context<'_>, events: &[u8]) -> Option<Route> {
        let first = top::elements(events).next()?;
        let content = top::member(first, "message").and_then(top::string_content)?;
        // ElastiCache and MemoryDB write JSON, too, into groups that the user names.
        let is_cache = || memchr::memmem::find(&content[..content.len().min(256)], b"ClusterId").is_some();
        if content.first() == Some(&b'{') && !context.log_group.starts_with("/aws/") && !is_cache() {
            return None;
        }
        let mut plain = self.take();
        plain.clear();
        json::unescape(&content[..content.len().min(FIRST_BYTES)], &mut plain);
        let route = log::detect(context.log_group, context.log_stream, &plain);
        self.give(plain);
        route
    }

    /// All messages of a payload as one text: entries that span messages are joined.
    pub(super) fn log_messages(&mut self, route: &Route, events: &[u8], context: &Context<'_>, sink: &mut Sink<'_>) -> Result<(), json::Malformed> {
        let mut text = self.take();
        text.clear();
        let mut messages = Vec::new();
        for element in top::elements(events) {
            let event = super::envelope::LogEvent::read(element)?;
            let Some(content) = event.message else { continue };
            let origin = |name| event.extracted.map_or("", |extracted| top::plain_text(top::member(extracted, name)));
            let piece = Piece { start: text.len() as u32, time_ms: event.time_ms };
            messages.push(Message { id: event.id, account: origin("@aws.account"), region: origin("@aws.region"), piece });
            json::unescape(content, &mut text);
            text.push(b'\n');
        }
        let pieces: Vec<Piece> = messages.iter().map(|m| m.piece).collect();
        let now_ms = pieces.last().map_or(0, |p| p.time_ms);
        let batch = Batch { route, text: &text, pieces: &pieces, stream: stream_hash(context), now_ms };
        let mut part_id = String::new();
        self.logs.decode(&batch, |event| {
            let message = messages.get(event.piece);
            let id = message.map_or("", |m| m.id);
            let account = message.map_or("", |m| m.account);
            let region = message.map_or("", |m| m.region);
            part_id.clear();
            if event.part > 0 {
                part_id.push_str(id);
                part_id.push('.');
                part_id.push_str(&event.part.to_string());
            }
            let id = if event.part > 0 { part_id.as_str() } else { id };
            let time_ms = event.time_ms.unwrap_or(context.time_ms);
            let account = if account.is_empty() { context.account } else { account };
            let region = if region.is_empty() { context.region } else { region };
            emit(event, Context { id, time_ms, account, region, ..*context }, sink);
        });
        self.give(text);
        Ok(())
    }

    /// A log message in its envelope whose format nobody knows: an event by its text alone.
    pub(super) fn unknown_message(text: &[u8], context: &Context<'_>, sink: &mut Sink<'_>) {
        sink(Item::Event(of_log(LogSource::default(), Body::Fields { text, fields: &[] }, *context, false)));
    }

    /// Plain text at the start of `text`; false if it is no log that is known.
    pub(super) fn plain_log(&mut self, text: &[u8], context: &Context<'_>, sink: &mut Sink<'_>) -> bool {
        let Some(route) = log::detect(context.log_group, context.log_stream, &text[..text.len().min(FIRST_BYTES)]) else { return false };
        let batch = Batch { route: &route, text, pieces: &[], stream: 0, now_ms: context.time_ms };
        self.logs.decode(&batch, |event| emit(event, Context { time_ms: event.time_ms.unwrap_or(context.time_ms), ..*context }, sink));
        true
    }
}

fn emit(event: &LogEvent<'_>, context: Context<'_>, sink: &mut Sink<'_>) {
    let mut fields: [(&'static str, &[u8]); FIELDS] = [("", &[]); FIELDS];
    let mut count = 0;
    for ((tax, value), place) in event.iter().zip(&mut fields) {
        *place = (tax.as_str(), value);
        count += 1;
    }
    let logsource = LogSource { product: event.product, service: event.kind.service(), category: event.kind.category() };
    let forged = event.get(log::Tax::Forged).is_some();
    sink(Item::Event(of_log(logsource, Body::Fields { text: event.raw, fields: &fields[..count] }, context, forged)));
}

fn of_log<'a>(logsource: LogSource<'a>, body: Body<'a>, context: Context<'a>, forged: bool) -> Event<'a> {
    Event { kind: Kind::Log, logsource, body, context, routing: Routing::default(), forged }
}

/// Names account, group and stream; never 0, which stands for a file.
fn stream_hash(context: &Context<'_>) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    for part in [context.account, context.log_group, context.log_stream] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish() | 1
}
