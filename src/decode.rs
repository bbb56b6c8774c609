//! From a record's bytes to events: every wrapping that CloudTrail and its neighbours come in is taken off here.
//!
//! In: the bytes of a Kinesis record or a piece of a file. Out: `Item`s, borrowed from the input or from the decoder's buffers.
//! Invariant: every byte ends up in an event, in something named that is left out, or in a defect; content decides, never a name.

mod document;
mod envelope;
mod gzip;
mod kpl;
pub mod log;
mod text;
mod top;

pub use document::{Progress, Stream};
pub use gzip::{MAX_INFLATED_BYTES, MAX_RATIO};

use crate::event::{Context, Event};

/// Wrappings inside each other, at most: a CloudTrail record in a CloudWatch Logs payload in KPL in a Lambda capture needs five.
pub const MAX_NESTING: usize = 8;

/// What the decoder found.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, for one call")]
#[derive(Debug)]
pub enum Item<'a> {
    Event(Event<'a>),
    /// Well understood and not an event.
    Left(LeftOut),
    Defect(Defect<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftOut {
    /// CloudWatch Logs checking that its destination is there.
    ControlMessage,
    /// A CloudTrail digest file: signatures of other files.
    Digest,
    /// A Database Activity Stream record, which only its KMS key opens.
    Encrypted,
}

impl LeftOut {
    pub fn name(self) -> &'static str {
        match self {
            LeftOut::ControlMessage => "control message",
            LeftOut::Digest => "digest file",
            LeftOut::Encrypted => "encrypted activity stream record",
        }
    }
}

/// Bytes that could not be understood: to be kept, counted and named.
#[derive(Debug, Clone, Copy)]
pub struct Defect<'a> {
    pub reason: Reason,
    /// Offset within the bytes that `Decoder` was given, or within what they inflate to.
    pub at: usize,
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    #[error("the gzip data is damaged or cut off")]
    Gzip,
    #[error("the gzip data inflates beyond the limit; likely a bomb")]
    GzipTooLarge,
    #[error("the aggregated record's protobuf is damaged")]
    Kpl,
    #[error("the base64 text is damaged")]
    Base64,
    #[error("the JSON text is not well-formed")]
    Json,
    #[error("the JSON text is cut off")]
    Truncated,
    #[error("too many wrappings inside each other")]
    TooNested,
    #[error("neither JSON nor a log line of a known format")]
    Unknown,
}

impl Reason {
    pub const ALL: [Self; 8] = [Self::Gzip, Self::GzipTooLarge, Self::Kpl, Self::Base64, Self::Json, Self::Truncated, Self::TooNested, Self::Unknown];

    /// As metrics and rows name it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Gzip => "gzip",
            Reason::GzipTooLarge => "gzip_too_large",
            Reason::Kpl => "kpl",
            Reason::Base64 => "base64",
            Reason::Json => "json",
            Reason::Truncated => "truncated",
            Reason::TooNested => "too_nested",
            Reason::Unknown => "unknown_format",
        }
    }
}

/// Where items go.
pub type Sink<'s> = dyn FnMut(Item<'_>) + 's;

/// Takes wrappings off. Reused for every record; its buffers are those of the largest record seen.
#[derive(Default)]
pub struct Decoder {
    inflater: gzip::Inflater,
    pool: Vec<Vec<u8>>,
    logs: log::LogDecoder,
}

impl Decoder {
    /// VPC flow logs have this format from now on.
    pub fn set_flow_format(&mut self, format: Option<log::FlowFormat>) {
        self.logs.flow_format = format;
    }

    /// One whole record.
    pub fn record(&mut self, data: &[u8], sink: &mut Sink<'_>) {
        self.bytes(data, &Context::default(), 0, sink);
    }

    /// A record of which, should it be an aggregate, the user records up to and with `past` are left out.
    pub fn record_after(&mut self, data: &[u8], past: Option<u64>, sink: &mut Sink<'_>) {
        match past {
            Some(past) if kpl::is_aggregate(data) => self.aggregate(data, Some(past), &Context::default(), 0, sink),
            _ => self.record(data, sink),
        }
    }

    fn aggregate(&mut self, data: &[u8], past: Option<u64>, context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        for user_record in kpl::records(data) {
            match user_record {
                Ok(user_record) if past.is_some_and(|past| user_record.sub_sequence <= past) => {}
                Ok(user_record) => self.bytes(user_record.data, context, nesting + 1, sink),
                Err(kpl::Damaged { at }) => sink(Item::Defect(Defect { reason: Reason::Kpl, at, bytes: data })),
            }
        }
    }

    fn bytes(&mut self, data: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        if nesting > MAX_NESTING {
            sink(Item::Defect(Defect { reason: Reason::TooNested, at: 0, bytes: data }));
            return;
        }
        if kpl::is_aggregate(data) {
            self.aggregate(data, None, context, nesting, sink);
        } else if gzip::is_gzip(data) {
            let mut plain = self.take();
            match self.inflater.inflate(data, &mut plain) {
                Ok(length) => self.bytes(&plain[..length], context, nesting + 1, sink),
                Err(reason) => sink(Item::Defect(Defect { reason, at: 0, bytes: data })),
            }
            self.give(plain);
        } else {
            let mut stream = document::Stream::default();
            self.documents(data, &mut stream, true, context, nesting, sink);
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    fn give(&mut self, buffer: Vec<u8>) {
        self.pool.push(buffer);
    }

    /// Base64 text, then whatever is inside.
    fn base64(&mut self, text: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        let mut decoded = self.take();
        decoded.clear();
        decoded.resize(text.len(), 0);
        match base64_simd::STANDARD.decode(text, base64_simd::Out::from_slice(&mut decoded)) {
            Ok(plain) => {
                let length = plain.len();
                self.bytes(&decoded[..length], context, nesting + 1, sink);
            }
            Err(_) => sink(Item::Defect(Defect { reason: Reason::Base64, at: 0, bytes: text })),
        }
        self.give(decoded);
    }

    /// The content of a JSON string, then whatever is inside.
    fn unescaped(&mut self, content: &[u8], context: &Context<'_>, nesting: usize, sink: &mut Sink<'_>) {
        let mut plain = self.take();
        plain.clear();
        crate::event::json::unescape(content, &mut plain);
        self.bytes(&plain, context, nesting + 1, sink);
        self.give(plain);
    }
}

#[cfg(test)]
mod tests;
