//! One log entry as bytes plus the fields that some loaded rule names.
//!
//! In: the text of an event, JSON or a parsed log line. Out: `Slots`, spans by `FieldId`. Invariant: nothing here allocates once
//! its buffers have grown to the size of the largest event seen.

pub mod derived;
pub mod json;
pub mod scan;
pub mod schema;
mod simd;
pub mod slots;
pub mod time;

pub use scan::{Known, Routing};
pub use schema::{AccountId, FieldId, Schema};
pub use slots::{Slots, Value, ValueKind};

/// What an event is, which decides the rules that see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A CloudTrail management, data or sign-in record.
    CloudTrail,
    /// A CloudTrail record of a VPC endpoint's network activity.
    NetworkActivity,
    /// CloudTrail Insights: no caller, no eventName of its own.
    Insight,
    /// Counts of data events over a window.
    Aggregated,
    /// An EventBridge event that carries no CloudTrail record; its service is in the routing source.
    EventBridge,
    /// A line (or several) of a database or network log.
    Log,
    /// Well-formed JSON of no known shape.
    Other,
}

/// The text that holds an event's fields.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// JSON text.
    Plain(&'a [u8]),
    /// JSON text inside a JSON string, its escapes still in place.
    Escaped(&'a [u8]),
    /// Fields that a log parser found, by taxonomy name, and the text they came from.
    Fields { text: &'a [u8], fields: &'a [(&'static str, &'a [u8])] },
}

/// What the envelope said about an event; empty where there was none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub log_group: &'a str,
    pub log_stream: &'a str,
    /// The envelope's own id of the event.
    pub id: &'a str,
    /// Milliseconds since the epoch, 0 where the envelope has none.
    pub time_ms: i64,
}

/// The words that a Sigma `logsource` is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogSource<'a> {
    pub product: &'a str,
    pub service: &'a str,
    pub category: &'a str,
}

/// One event on its way to the detectors.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub kind: Kind,
    pub logsource: LogSource<'a>,
    pub body: Body<'a>,
    pub context: Context<'a>,
    /// Spans into the body's text.
    pub routing: Routing,
    /// A log line that carries an attempt to forge another.
    pub forged: bool,
}
