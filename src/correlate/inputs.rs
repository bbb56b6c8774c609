//! Matches on their way from the workers to the keeper: one text buffer and a few tables, cleared and reused.
//!
//! In: matches with borrowed values. Out: entries that read the same. Invariant: a batch that has been through `clear` takes
//! the next one without allocating, unless that is larger.

use super::{Id, plan::FeedId};

/// The parts of a match that are known before its fields.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub feed: FeedId,
    /// Event time; milliseconds since the epoch.
    pub time_ms: i64,
    /// When the record reached the stream; the event time in `scan`.
    pub arrival_ms: i64,
    /// Hash of the event's identity (DESIGN: sharedEventID, else eventID, …).
    pub identity: Id,
    pub account: &'a str,
    pub region: &'a str,
    /// The event as alerts name it.
    pub event_id: &'a str,
    pub source: &'a str,
    pub name: &'a str,
    /// The rule's summary filled in; may be empty.
    pub summary: &'a str,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    feed: FeedId,
    time_ms: i64,
    arrival_ms: i64,
    identity: Id,
    /// Ends of account, region, event id, source, name, summary in the text; they begin at `start`.
    start: u32,
    ends: [u32; 6],
    /// Where the row's fields begin.
    fields: u32,
}

/// A batch of matches.
#[derive(Debug, Default, Clone)]
pub struct Inputs {
    text: String,
    rows: Vec<Row>,
    /// Per field: where its values begin.
    fields: Vec<u32>,
    values: Vec<(u32, u32)>,
}

impl Inputs {
    /// Begins a match; then `field` once for each of the feed's group fields and value fields, in order.
    pub fn push(&mut self, head: Head) {
        let start = self.text.len() as u32;
        let mut ends = [0; 6];
        for (end, part) in ends.iter_mut().zip([head.account, head.region, head.event_id, head.source, head.name, head.summary]) {
            self.text.push_str(part);
            *end = self.text.len() as u32;
        }
        self.rows.push(Row {
            feed: head.feed,
            time_ms: head.time_ms,
            arrival_ms: head.arrival_ms,
            identity: head.identity,
            start,
            ends,
            fields: self.fields.len() as u32,
        });
    }

    /// The next field of the match: no value where it is missing or null, several where it is an array.
    pub fn field<'v>(&mut self, values: impl IntoIterator<Item = &'v str>) {
        self.fields.push(self.values.len() as u32);
        for value in values {
            let start = self.text.len() as u32;
            self.text.push_str(value);
            self.values.push((start, self.text.len() as u32));
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.fields.clear();
        self.values.clear();
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.rows.len() * size_of::<Row>() + self.fields.len() * 4 + self.values.len() * 8
    }

    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        let row = self.rows.get(index)?;
        let until = self.rows.get(index + 1).map_or(self.fields.len(), |next| next.fields as usize);
        Some(Entry { inputs: self, row, fields: row.fields as usize..until })
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

/// One match of a batch.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    inputs: &'a Inputs,
    row: &'a Row,
    fields: std::ops::Range<usize>,
}

impl<'a> Entry<'a> {
    pub fn head(&self) -> Head<'a> {
        let mut parts = [""; 6];
        let mut start = self.row.start;
        for (part, end) in parts.iter_mut().zip(self.row.ends) {
            *part = &self.inputs.text[start as usize..end as usize];
            start = end;
        }
        let [account, region, event_id, source, name, summary] = parts;
        Head {
            feed: self.row.feed,
            time_ms: self.row.time_ms,
            arrival_ms: self.row.arrival_ms,
            identity: self.row.identity,
            account,
            region,
            event_id,
            source,
            name,
            summary,
        }
    }

    /// Values of field `index`; none where the batch has no such field.
    pub fn field(&self, index: usize) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        let inputs = self.inputs;
        let at = self.fields.start + index;
        let range = match inputs.fields.get(at) {
            Some(start) if at < self.fields.end => *start as usize..inputs.fields.get(at + 1).map_or(inputs.values.len(), |next| *next as usize),
            _ => 0..0,
        };
        inputs.values[range].iter().map(|(start, end)| &inputs.text[*start as usize..*end as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back() {
        let mut inputs = Inputs::default();
        for round in 0..2 {
            inputs.clear();
            for n in 0..3u8 {
                let id = format!("event-{round}-{n}");
                inputs.push(Head {
                    feed: FeedId(n.into()),
                    time_ms: n.into(),
                    arrival_ms: 9,
                    identity: [n; 16],
                    account: "111122223333",
                    region: "",
                    event_id: &id,
                    source: "rds",
                    name: "Delete",
                    summary: "ü",
                });
                inputs.field(["a", "b"].into_iter().take(n.into()));
                inputs.field(["é"]);
            }
            assert_eq!(inputs.len(), 3);
            for (n, entry) in inputs.iter().enumerate() {
                let head = entry.head();
                assert_eq!((head.feed, head.account, head.region, head.name, head.summary), (FeedId(n as u32), "111122223333", "", "Delete", "ü"));
                assert_eq!(head.event_id, format!("event-{round}-{n}"));
                assert_eq!(entry.field(0).collect::<Vec<_>>(), ["a", "b"][..n]);
                assert_eq!(entry.field(1).collect::<Vec<_>>(), ["é"]);
                assert_eq!(entry.field(2).len(), 0);
            }
        }
    }
}
