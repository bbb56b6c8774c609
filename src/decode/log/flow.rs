//! VPC flow logs, in the default or a configured format.
//!
//! In: space-separated records, or a header line with the fields' names. Out: one event a record, fields under AWS's own names.
//! Invariant: a record with another number of columns than its format is told as `other`, never read askew.

use super::{LogEvent, LogFields, Sink, When, scan, tax::Tax};

/// Columns of one format that are known; unknown ones are passed over.
const MOST_COLUMNS: usize = 64;

/// Version 2, the default.
const DEFAULT: [Tax; 14] = [
    Tax::FlowVersion,
    Tax::FlowAccount,
    Tax::FlowInterface,
    Tax::FlowSource,
    Tax::FlowDestination,
    Tax::FlowSourcePort,
    Tax::FlowDestinationPort,
    Tax::FlowProtocol,
    Tax::FlowPackets,
    Tax::FlowBytes,
    Tax::FlowStart,
    Tax::FlowEnd,
    Tax::FlowAction,
    Tax::FlowStatus,
];

/// The columns of a format: what each holds, nothing where this program has no name for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct FlowFormat {
    columns: Vec<Option<Tax>>,
}

impl Default for FlowFormat {
    fn default() -> Self {
        Self { columns: DEFAULT.iter().copied().map(Some).collect() }
    }
}

impl FlowFormat {
    /// Reads a format as it was given to AWS (`${version} ${srcaddr} …`) or as a header line (`version srcaddr …`). `None` without the
    /// fields that every use needs: `srcaddr`, `dstaddr` and `action`.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |word: &str| word.trim_start_matches("${").trim_end_matches('}').replace('_', "-");
        let columns: Vec<Option<Tax>> = text.split_whitespace().take(MOST_COLUMNS).map(|word| column(&name(word))).collect();
        let has = |tax| columns.contains(&Some(tax));
        (has(Tax::FlowSource) && has(Tax::FlowDestination) && has(Tax::FlowAction)).then_some(Self { columns })
    }
}

impl TryFrom<String> for FlowFormat {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a flow log's format names its fields in order, among them srcaddr, dstaddr and action")
    }
}

fn column(name: &str) -> Option<Tax> {
    Tax::ALL.iter().copied().find(|tax| tax.is_flow() && tax.as_str() == name)
}

/// Buffers kept between batches.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The header line of the file that is being read.
    header: Option<FlowFormat>,
    default: FlowFormat,
}

impl Scratch {
    pub(super) fn decode<F: FnMut(&LogEvent<'_>)>(&mut self, fields: &mut LogFields, sink: &mut Sink<'_, F>, configured: Option<&FlowFormat>) {
        let text = sink.batch.text;
        if !sink.batch.pieces.is_empty() {
            self.header = None;
        }
        let mut at = 0;
        while at < text.len() {
            let (line, next) = scan::line(text, at);
            let start = at;
            at = next;
            if line.trim_ascii().is_empty() {
                sink.skip(line.len());
                continue;
            }
            if is_header(line) {
                self.header = std::str::from_utf8(line).ok().and_then(FlowFormat::parse);
                sink.skip(line.len());
                continue;
            }
            let format = self.header.as_ref().or(configured).unwrap_or(&self.default);
            fields.begin_event();
            let when = fill(line, format, fields);
            sink.emit(fields, "aws", start, start + line.len(), when);
        }
    }
}

fn is_header(line: &[u8]) -> bool {
    memchr::memmem::find(line, b"srcaddr").is_some() && memchr::memmem::find(line, b"dstaddr").is_some()
}

fn fill(line: &[u8], format: &FlowFormat, fields: &mut LogFields) -> When {
    let words = || line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    if words().count() != format.columns.len() {
        fields.put(Tax::Event, b"other");
        fields.put(Tax::Message, line);
        return When::Unknown;
    }
    let mut when = When::Unknown;
    fields.put(Tax::Event, b"flow");
    for (word, column) in words().zip(&format.columns) {
        let Some(column) = column else { continue };
        if word == b"-" {
            continue;
        }
        fields.put(*column, word);
        if *column == Tax::FlowStart
            && let Some(seconds) = scan::number(word).filter(|seconds| *seconds < 1 << 40)
        {
            when = When::At(seconds as i64 * 1000);
        }
    }
    when
}
