//! One JSON text after another: told apart, taken apart.
//!
//! In: NDJSON, concatenated JSON, arrays, `{"Records":[…]}`, whole or in pieces. Out: items. Invariant: a broken text costs itself
//! and no neighbour, where line ends or brackets show where the neighbour begins.

use super::top::{self, Members};
use super::{Decoder, Defect, Item, LeftOut, Reason, Sink};
use crate::event::scan::{self, Level, Scanned};
use crate::event::{Body, Context, Event, Kind, Known, LogSource, Routing, json};

/// Where a stream of texts stands between two pieces.
#[derive(Debug, Default)]
pub struct Stream {
    array: Array,
    /// A line was found broken: from here on no text may reach beyond its line.
    bounded: bool,
    /// A JSON text was read: what comes later is no log of lines.
    json: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Array {
    #[default]
    Outside,
    /// Inside a bare array.
    Bare,
    /// Inside the array of `{"Records":[…]}`.
    Records,
    /// Behind that array, before the object's end.
    After,
}

/// How far `Decoder::documents` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything is consumed.
    Done,
    /// What begins at `at` is not complete: call again with it and more.
    NeedMore { at: usize },
}

/// Either the end of what was read or the wish for more.
type Step = Option<usize>;

impl Decoder {
    /// The next piece of a file. `last`: nothing follows it.
    pub fn piece(&mut self, data: &[u8], stream: &mut Stream, last: bool, sink: &mut Sink<'_>) -> Progress {
        self.documents(data, stream, last, &Context::default(), 0, sink)
    }

    pub(super) fn documents(
        &mut self,
        data: &[u8],
        stream: &mut Stream,
        last: bool,
        context: &Context<'_>,
        nesting: usize,
        sink: &mut Sink<'_>,
    ) -> Progress {
        let mut at = 0;
        loop {
            at = separators(data, at, stream.array);
            let Some(&byte) = data.get(at) else { return Progress::Done };
            let step = match (stream.array, byte) {
                (Array::After, _) => after_records(data, at, stream),
                (Array::Bare | Array::Records, b']') => {
                    stream.array = if stream.array == Array::Records { Array::After } else { Array::Outside };
                    Some(at + 1)
                }
                (Array::Outside, b'{') if let Some(first) = records_prefix(&data[at..]) => {
                    stream.array = Array::Records;
                    Some(at + first)
                }
                (Array::Outside, b'[') if matches!(data.get(top::space(data, at + 1)), Some(b'{' | b']')) => {
                    stream.array = Array::Bare;
                    Some(at + 1)
                }
                (_, b'{') => self.document(data, at, stream, last, context, nesting, sink),
                _ => self.other(data, at, stream, last, context, sink),
            };
            match step {
                Some(next) => at = next,
                None if last => {
                    sink(Item::Defect(Defect { reason: Reason::Truncated, at, bytes: &data[at..] }));
                    return Progress::Done;
                }
                None => return Progress::NeedMore { at },
            }
        }
    }

    /// An object at `at`; the index behind it.
    #[expect(clippy::too_many_arguments, reason = "one position in one stream")]
    fn document(
        &mut self,
        data: &[u8],
        at: usize,
        stream: &mut Stream,
        last: bool,
        context: &Context<'_>,
        nesting: usize,
        sink: &mut Sink<'_>,
    ) -> Step {
        let in_place = last && stream.array == Array::Outside && !stream.bounded && data[at..].starts_with(ENVELOPE_LEAD);
        if in_place && let Ok(end) = self.envelope(data, at, nesting, sink) {
            return Some(end);
        }
        let line = if stream.bounded { line_end(data, at) } else { None };
        let scanned = scan::scan(&data[..line.unwrap_or(data.len())], at, Level::Plain);
        if scanned.is_none_or(|s| s.end - at > BROKEN_LINE_BYTES || stream.bounded)
            && let Some(end) = broken_line(data, at, scanned)
        {
            stream.bounded = true;
            sink(Item::Defect(Defect { reason: Reason::Json, at, bytes: &data[at..end] }));
            return Some(end);
        }
        let scanned = scanned?;
        stream.json = true;
        self.object(&data[at..scanned.end], at, &scanned, context, nesting, sink);
        Some(scanned.end)
    }

    /// One object whose end is known. Payloads of CloudWatch Logs are tried in the service's order first.
    pub(super) fn object(&mut self, text: &[u8], at: usize, scanned: &Scanned, context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        let routing = &scanned.routing;
        if matches!((routing.event_source, routing.event_name), (Known::Text { .. }, Known::Text { .. })) {
            sink(Item::Event(cloudtrail(Body::Plain(text), *routing, *context)));
        } else if text.starts_with(ENVELOPE_LEAD) && self.envelope(text, 0, nesting, sink).is_ok() {
        } else if let Err(json::Malformed { at: inner }) = self.classify(text, routing, context, nesting, sink) {
            sink(Item::Defect(Defect { reason: Reason::Json, at: at + inner, bytes: text }));
        }
    }

    /// Neither JSON object nor array: a log of lines from its beginning, or a line that nobody knows.
    fn other(&mut self, data: &[u8], at: usize, stream: &Stream, last: bool, context: &Context<'_>, sink: &mut Sink<'_>) -> Step {
        if stream.array == Array::Outside && !stream.json {
            let end = if last { Some(data.len()) } else { memchr::memrchr(b'\n', data).map(|end| end + 1).filter(|end| *end > at + LOG_PIECE_BYTES) };
            match end {
                Some(end) if self.plain_log(&data[at..end], context, sink) => return Some(end),
                None if super::log::detect("", "", &data[at..data.len().min(at + LOG_PIECE_BYTES)]).is_some() => return None,
                _ => {}
            }
        }
        let end = match line_end(data, at) {
            Some(end) => end,
            None if last => data.len(),
            None => return None,
        };
        sink(Item::Defect(Defect { reason: Reason::Unknown, at, bytes: &data[at..end] }));
        Some(end)
    }

    /// What kind of object is this? The order is that of FORMATS.md's table.
    fn classify(
        &mut self,
        text: &[u8],
        routing: &Routing,
        context: &Context<'_>,
        nesting: usize,
        sink: &mut Sink<'_>,
    ) -> Result<(), json::Malformed> {
        let seen = Seen::read(text)?;
        if let Some(events) = seen.log_events {
            return self.log_events(text, &seen.envelope(context), events, nesting, sink);
        }
        if seen.event_source.is_some() && seen.event_name.is_some() {
            sink(Item::Event(cloudtrail(Body::Plain(text), *routing, *context)));
            return Ok(());
        }
        if let Some(records) = seen.records.filter(|r| r.starts_with(b"[")) {
            for element in top::elements(records) {
                self.element(element, context, nesting, sink)?;
            }
        } else if let (Some(detail), true) = (seen.detail, seen.detail_type.is_some()) {
            self.event_bridge(text, detail, &seen, context, nesting, sink);
        } else if top::plain_text(seen.kind) == "DatabaseActivityMonitoringRecords" {
            sink(Item::Left(LeftOut::Encrypted));
        } else if let Some(message) = seen.sns_message.and_then(top::string_content) {
            self.unescaped(message, context, nesting, sink);
        } else if let Some(event) = seen.cloudtrail_event.and_then(top::string_content) {
            self.escaped_record(event, context, nesting, sink);
        } else if let Some(data) = seen.data.and_then(top::string_content) {
            self.base64(data, context, nesting, sink);
        } else if seen.digest.is_some() {
            sink(Item::Left(LeftOut::Digest));
        } else {
            let kind = if seen.insight || top::plain_text(seen.event_type) == "AwsCloudTrailInsight" {
                Kind::Insight
            } else if top::plain_text(seen.event_category) == "Aggregated" {
                Kind::Aggregated
            } else {
                Kind::Other
            };
            sink(Item::Event(event(kind, Body::Plain(text), Routing::default(), *context)));
        }
        Ok(())
    }

    /// A member of `Records`, `records` or `Events`, or a bare array's element.
    fn element(&mut self, element: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) -> Result<(), json::Malformed> {
        if !element.starts_with(b"{") || nesting > super::MAX_NESTING {
            let reason = if element.starts_with(b"{") { Reason::TooNested } else { Reason::Unknown };
            sink(Item::Defect(Defect { reason, at: 0, bytes: element }));
            return Ok(());
        }
        let scanned = scan::scan(element, 0, Level::Plain).ok_or(json::Malformed { at: 0 })?;
        self.object(element, 0, &scanned, context, nesting + 1, sink);
        Ok(())
    }

    /// A CloudTrail record as the content of a JSON string.
    fn escaped_record(&mut self, content: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        self.unescaped(content, context, nesting, sink);
    }

    fn event_bridge(&mut self, text: &[u8], detail: &[u8], seen: &Seen<'_>, context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        let context = Context {
            account: or(top::plain_text(seen.account), context.account),
            region: or(top::plain_text(seen.region), context.region),
            id: or(top::plain_text(seen.id), context.id),
            ..*context
        };
        let carries_record = top::plain_text(seen.detail_type).ends_with("via CloudTrail") && detail.starts_with(b"{");
        if carries_record && let Some(scanned) = scan::scan(detail, 0, Level::Plain) {
            self.object(detail, 0, &scanned, &context, nesting + 1, sink);
            return;
        }
        let source = top::plain_text(seen.source);
        let mut bridged = event(Kind::EventBridge, Body::Plain(text), Routing::default(), context);
        bridged.logsource.service = source.strip_prefix("aws.").unwrap_or(source);
        sink(Item::Event(bridged));
    }
}

fn or<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

/// How CloudWatch Logs begins a payload.
const ENVELOPE_LEAD: &[u8] = br#"{"messageType":"#;
/// A log file is handed on in pieces of this size, cut at a line's end.
const LOG_PIECE_BYTES: usize = 4 << 20;
/// An object of fewer bytes is taken for whole without a look at its line.
const BROKEN_LINE_BYTES: usize = 64 << 10;

/// Where the line at `at` ends although its object doesn't, if the next line begins an object of its own: NDJSON with a broken line.
fn broken_line(data: &[u8], at: usize, scanned: Option<Scanned>) -> Option<usize> {
    let end = line_end(data, at)?;
    (scanned.is_none_or(|s| s.end > end) && data.get(end) == Some(&b'{')).then_some(end)
}

/// One past the line feed.
fn line_end(data: &[u8], at: usize) -> Option<usize> {
    memchr::memchr(b'\n', &data[at..]).map(|step| at + step + 1)
}

fn separators(data: &[u8], mut at: usize, array: Array) -> usize {
    loop {
        match data.get(at) {
            Some(b' ' | b'\t' | b'\n' | b'\r' | 0x1e | 0) => at += 1,
            Some(b',') if array != Array::Outside => at += 1,
            Some(0xef) if data[at..].starts_with(b"\xef\xbb\xbf") => at += 3,
            _ => return at,
        }
    }
}

/// The length of `{"Records":[`, with blanks where JSON allows them.
fn records_prefix(data: &[u8]) -> Option<usize> {
    let mut at = 1;
    for token in [&br#""Records""#[..], b":", b"["] {
        at = top::space(data, at);
        at += data[at..].starts_with(token).then_some(token.len())?;
    }
    Some(at)
}

/// Steps over the members behind the `Records` array.
fn after_records(data: &[u8], at: usize, stream: &mut Stream) -> Step {
    if data[at] == b'}' {
        stream.array = Array::Outside;
        return Some(at + 1);
    }
    let (end, _) = json::string(data, at + 1).ok().filter(|_| data[at] == b'"')?;
    let colon = top::space(data, end + 1);
    (data.get(colon) == Some(&b':')).then(|| json::skip(data, top::space(data, colon + 1)).ok()).flatten()
}

/// A record with eventSource and eventName.
pub(super) fn cloudtrail<'a>(body: Body<'a>, routing: Routing, context: Context<'a>) -> Event<'a> {
    let text = match body {
        Body::Plain(text) | Body::Escaped(text) | Body::Fields { text, .. } => text,
    };
    let kind = if is_network_activity(text) { Kind::NetworkActivity } else { Kind::CloudTrail };
    event(kind, body, routing, context)
}

/// CloudTrail writes eventCategory last: its value is looked for there, so that no record is read for it. A record that has it
/// elsewhere is an ordinary one, and all rules of CloudTrail see both.
fn is_network_activity(text: &[u8]) -> bool {
    // In a JSON string the quotes have a backslash before them.
    let quote = |text: &'_ [u8]| text.strip_suffix(b"\"").map(|text| text.strip_suffix(b"\\").unwrap_or(text).len());
    let end = |text: &[u8], word: &[u8]| text.strip_suffix(word).map(<[u8]>::len);
    let member = || -> Option<bool> {
        let text = &text[..end(text.trim_ascii_end(), b"}")?];
        let text = &text[..quote(text.trim_ascii_end())?];
        let text = &text[..end(text, b"NetworkActivity")?];
        let text = &text[..quote(text)?];
        let text = &text[..end(text.trim_ascii_end(), b":")?];
        let text = &text[..quote(text.trim_ascii_end())?];
        Some(text.ends_with(b"\"eventCategory"))
    };
    member().unwrap_or(false)
}

pub(super) fn event<'a>(kind: Kind, body: Body<'a>, routing: Routing, context: Context<'a>) -> Event<'a> {
    let (service, category) = match kind {
        Kind::CloudTrail => ("cloudtrail", ""),
        Kind::NetworkActivity => ("cloudtrail", "network_activity"),
        Kind::Insight => ("cloudtrail-insight", ""),
        Kind::Aggregated => ("cloudtrail-aggregated", ""),
        Kind::EventBridge | Kind::Log | Kind::Other => ("", ""),
    };
    Event { kind, logsource: LogSource { product: "aws", service, category }, body, context, routing, forged: false }
}

/// The members that tell kinds of objects apart, raw.
#[derive(Default)]
struct Seen<'a> {
    event_source: Option<&'a [u8]>,
    event_name: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    event_category: Option<&'a [u8]>,
    insight: bool,
    log_events: Option<&'a [u8]>,
    owner: Option<&'a [u8]>,
    log_group: Option<&'a [u8]>,
    log_stream: Option<&'a [u8]>,
    message_type: Option<&'a [u8]>,
    records: Option<&'a [u8]>,
    detail: Option<&'a [u8]>,
    detail_type: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    account: Option<&'a [u8]>,
    region: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    sns_message: Option<&'a [u8]>,
    cloudtrail_event: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    digest: Option<&'a [u8]>,
}

impl<'a> Seen<'a> {
    fn read(text: &'a [u8]) -> Result<Self, json::Malformed> {
        let mut seen = Self::default();
        let mut members = Members::new(text, 0);
        let mut key = Vec::new();
        while let Some(member) = members.next_key()? {
            let value = members.skip_value(&member)?;
            key.clear();
            json::unescape(member.key, &mut key);
            seen.note(&key, value);
        }
        Ok(seen)
    }

    fn note(&mut self, key: &[u8], value: &'a [u8]) {
        let place = match key {
            b"eventSource" => &mut self.event_source,
            b"eventName" => &mut self.event_name,
            b"eventType" => &mut self.event_type,
            b"eventCategory" => &mut self.event_category,
            b"insightDetails" => {
                self.insight = true;
                return;
            }
            b"logEvents" => &mut self.log_events,
            b"owner" => &mut self.owner,
            b"logGroup" => &mut self.log_group,
            b"logStream" => &mut self.log_stream,
            b"messageType" => &mut self.message_type,
            b"Records" | b"records" | b"Events" => &mut self.records,
            b"detail" => &mut self.detail,
            b"detail-type" => &mut self.detail_type,
            b"source" => &mut self.source,
            b"account" => &mut self.account,
            b"region" => &mut self.region,
            b"id" => &mut self.id,
            b"type" | b"Type" => &mut self.kind,
            b"Message" => &mut self.sns_message,
            b"CloudTrailEvent" => &mut self.cloudtrail_event,
            b"data" => &mut self.data,
            // Lambda: the payload is a member of this member.
            b"kinesis" | b"awslogs" => {
                self.data = top::member(value, "data");
                return;
            }
            b"Sns" => {
                self.sns_message = top::member(value, "Message");
                return;
            }
            b"digestS3Object" => &mut self.digest,
            _ => return,
        };
        *place = Some(value);
    }

    fn envelope(&self, context: &Context<'a>) -> Context<'a> {
        Context {
            account: or(top::plain_text(self.owner), context.account),
            log_group: top::plain_text(self.log_group),
            log_stream: top::plain_text(self.log_stream),
            ..*context
        }
    }
}
