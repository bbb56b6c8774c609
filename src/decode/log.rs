//! The databases' own logs: text in, events with one taxonomy out.
//!
//! In: the messages of one log stream, joined by newlines (a CloudWatch Logs record or a piece of a file). Out: `LogEvent`s,
//! whose fields are named by `tax`. Invariant: every byte of the text belongs to some event or is counted as skipped, and a
//! line that a client forged never counts as true (`log.forged`, `log_forgery`).

pub mod detect;
mod docdb;
pub mod fields;
pub mod flow;
mod json;
mod mysql;
mod neptune;
mod oracle;
mod plain;
mod postgres;
mod redis;
mod redshift;
pub mod scan;
mod sqlserver;
pub mod statement;
pub mod tax;

pub use self::{
    detect::{Kind, Route, detect},
    fields::LogFields,
    flow::FlowFormat,
    tax::Tax,
};

/// Longest text of one batch, in bytes: spans are 32 bits wide. Records are far shorter, files are read in pieces.
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// One CloudWatch Logs message within the batch's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset of its first byte.
    pub start: u32,
    /// CloudWatch Logs' own timestamp, in milliseconds since the epoch.
    pub time_ms: i64,
}

/// Messages of one log stream, each followed by a newline.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Which log it is, and whose.
    pub route: &'a Route,
    pub text: &'a [u8],
    /// Where each message begins, in order; empty for a file.
    pub pieces: &'a [Piece],
    /// A hash of account, log group and stream, so that a detail finds its message in the record before; 0 for a file.
    pub stream: u64,
    /// The time of arrival, in milliseconds since the epoch.
    pub now_ms: i64,
}

/// One event, valid during the call that hands it out.
#[derive(Debug, Clone, Copy)]
pub struct LogEvent<'a> {
    pub kind: Kind,
    /// Sigma's product; differs from `kind`'s where only the line tells (MySQL or MariaDB).
    pub product: &'static str,
    /// Milliseconds since the epoch: from the line, else from CloudWatch Logs; `None` in a file whose lines have no time.
    pub time_ms: Option<i64>,
    /// The message that it begins in: index into `Batch::pieces`, 0 for a file.
    pub piece: usize,
    /// Counts the events that begin in the same message, so that (message, part) is an identity.
    pub part: u32,
    /// The whole entry as logged.
    pub raw: &'a [u8],
    pub fields: &'a LogFields,
    /// The text that `fields` refers to.
    pub text: &'a [u8],
}

impl<'a> LogEvent<'a> {
    /// The value of a field.
    pub fn get(&self, tax: Tax) -> Option<&'a [u8]> {
        self.fields.get(self.text, tax)
    }

    /// Every field that is set.
    pub fn iter(&self) -> impl Iterator<Item = (Tax, &'a [u8])> {
        self.fields.iter(self.text)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    pub events: u64,
    /// Events whose lines imitate log lines.
    pub forged: u64,
    /// Bytes of lines that hold no event: a server's banner, blank lines.
    pub skipped_bytes: u64,
    /// Messages whose details will not be joined, should they come in the next record: too many streams are remembered.
    pub forgotten: u64,
}

/// Parses batches; keeps its buffers between them.
#[derive(Debug, Default)]
pub struct LogDecoder {
    fields: LogFields,
    postgres: postgres::Scratch,
    audit: mysql::audit::Scratch,
    error: mysql::error::Scratch,
    general: mysql::general::Scratch,
    slow: mysql::slow::Scratch,
    docdb: docdb::Scratch,
    oracle: oracle::Scratch,
    flow: flow::Scratch,
    /// The format that the user has given for VPC flow logs.
    pub flow_format: Option<FlowFormat>,
}

impl LogDecoder {
    /// Hands out each event of the batch in order. A text over `MAX_BATCH_BYTES` yields nothing and counts as skipped.
    pub fn decode(&mut self, batch: &Batch<'_>, each: impl FnMut(&LogEvent<'_>)) -> Outcome {
        let mut outcome = Outcome::default();
        if batch.text.len() > MAX_BATCH_BYTES {
            outcome.skipped_bytes = batch.text.len() as u64;
            return outcome;
        }
        self.fields.begin_batch(batch.text);
        batch.route.put(&mut self.fields);
        self.fields.keep();
        let mut sink = Sink { batch, each, outcome: &mut outcome, piece: 0, part: 0 };
        match batch.route.kind {
            Kind::Postgres => self.postgres.decode(&mut self.fields, &mut sink),
            Kind::MysqlAudit => self.audit.decode(&mut self.fields, &mut sink),
            Kind::MysqlError => self.error.decode(&mut self.fields, &mut sink),
            Kind::MysqlGeneral => self.general.decode(&mut self.fields, &mut sink),
            Kind::MysqlSlow => self.slow.decode(&mut self.fields, &mut sink),
            Kind::SqlServer => sqlserver::decode(&mut self.fields, &mut sink),
            Kind::OracleAudit => self.oracle.audit(&mut self.fields, &mut sink),
            Kind::OracleAlert => oracle::alert(&mut self.fields, &mut sink),
            Kind::RedshiftConnection => redshift::connections(&mut self.fields, &mut sink),
            Kind::RedshiftUser => redshift::users(&mut self.fields, &mut sink),
            Kind::RedshiftActivity => redshift::activity(&mut self.fields, &mut sink),
            Kind::DocdbAudit => self.docdb.decode(&mut self.fields, &mut sink, false),
            Kind::DocdbProfiler => self.docdb.decode(&mut self.fields, &mut sink, true),
            Kind::NeptuneAudit => neptune::decode(&mut self.fields, &mut sink),
            Kind::RedisSlow => redis::decode(&mut self.fields, &mut sink, true),
            Kind::RedisEngine => redis::decode(&mut self.fields, &mut sink, false),
            Kind::IamRefusals => plain::decode(&mut self.fields, &mut sink, true),
            Kind::Plain => plain::decode(&mut self.fields, &mut sink, false),
            Kind::FlowLog => self.flow.decode(&mut self.fields, &mut sink, self.flow_format.as_ref()),
        }
        outcome
    }
}

/// A server's clock and CloudWatch Logs' may differ by this much, in milliseconds; more is a time zone.
const MOST_SKEW_MS: i64 = 600_000;

/// What an entry says about its time, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    At(i64),
    /// As if the server's zone, which the log doesn't name, were UTC.
    Zoneless(i64),
    Unknown,
}

impl From<Option<i64>> for When {
    fn from(time_ms: Option<i64>) -> Self {
        time_ms.map_or(When::Unknown, When::At)
    }
}

/// Where parsers hand their events.
struct Sink<'a, F> {
    batch: &'a Batch<'a>,
    each: F,
    outcome: &'a mut Outcome,
    piece: usize,
    part: u32,
}

impl<F: FnMut(&LogEvent<'_>)> Sink<'_, F> {
    /// Hands out the entry that lies at `start..end` with the fields set for it. Entries come in the order of their starts.
    fn emit(&mut self, fields: &LogFields, product: &'static str, start: usize, end: usize, when: When) {
        let pieces = self.batch.pieces;
        let before = self.piece;
        while pieces.get(self.piece + 1).is_some_and(|next| next.start as usize <= start) {
            self.piece += 1;
        }
        self.part = if self.piece == before && self.outcome.events > 0 { self.part + 1 } else { 0 };
        self.outcome.events += 1;
        self.outcome.forged += u64::from(fields.is_set(Tax::Forged));
        let event = LogEvent {
            kind: self.batch.route.kind,
            product,
            time_ms: self.time(when),
            piece: self.piece,
            part: self.part,
            raw: &self.batch.text[start..end],
            fields,
            text: self.batch.text,
        };
        (self.each)(&event);
    }

    /// The entry's own time, unless it lacks a zone and CloudWatch Logs' time of the message shows another one than UTC.
    fn time(&self, when: When) -> Option<i64> {
        let piece = self.batch.pieces.get(self.piece).map(|piece| piece.time_ms);
        match (when, piece) {
            (When::At(ms), _) => Some(ms),
            (When::Zoneless(ms), Some(piece)) if (ms - piece).abs() > MOST_SKEW_MS => Some(piece),
            (When::Zoneless(ms), _) => Some(ms),
            (When::Unknown, piece) => piece,
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.outcome.skipped_bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests;
