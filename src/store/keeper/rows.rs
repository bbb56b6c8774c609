//! How the keeper writes its rows.
//!
//! In: items, groups, runs, timers. Out: keys that order as they are read, and values. Invariant: what is written reads back
//! the same; a key has one length per kind, so no key is another's prefix by accident.

use crate::{
    correlate::{Head, Id, Item, runs::Runs},
    store::{key_time, time_key},
};

/// Longest text of an event that evidence keeps; identifiers are shorter.
const TEXT_BYTES: usize = 512;

/// What alerts say about an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    pub account: String,
    pub region: String,
    pub event_id: String,
    pub source: String,
    pub name: String,
    pub summary: String,
}

pub fn evidence_key(group: &Id, item: &Item) -> Vec<u8> {
    let mut key = Vec::with_capacity(58);
    key.extend_from_slice(group);
    key.extend_from_slice(&time_key(item.time_ms));
    key.extend_from_slice(&item.identity);
    key.extend_from_slice(&item.tag.to_be_bytes());
    // Most kinds keep no value: their keys end here.
    if item.value != [0; 16] {
        key.extend_from_slice(&item.value);
    }
    key
}

/// Where the items of a group from `time_ms` on begin.
pub fn evidence_from(group: &Id, time_ms: i64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(group);
    key[16..].copy_from_slice(&time_key(time_ms));
    key
}

/// The item of an evidence key; `None` for the key of a row of runs.
pub fn read_evidence_key(key: &[u8]) -> Option<Item> {
    let value = match key.len() {
        42 => [0; 16],
        58 => key[42..].try_into().ok()?,
        _ => return None,
    };
    Some(Item {
        time_ms: key_time(key[16..24].try_into().ok()?),
        identity: key[24..40].try_into().ok()?,
        tag: u16::from_be_bytes(key[40..42].try_into().ok()?),
        value,
    })
}

pub fn runs_key(group: &Id, value: &Id) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(group);
    key[16..].copy_from_slice(value);
    key
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&(end as u16).to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

fn read_text(bytes: &mut &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

pub fn payload(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    for text in [head.account, head.region, head.event_id, head.source, head.name, head.summary] {
        push_text(&mut out, text);
    }
    out
}

pub fn read_payload(mut bytes: &[u8]) -> Option<Payload> {
    let bytes = &mut bytes;
    Some(Payload {
        account: read_text(bytes)?,
        region: read_text(bytes)?,
        event_id: read_text(bytes)?,
        source: read_text(bytes)?,
        name: read_text(bytes)?,
        summary: read_text(bytes)?,
    })
}

/// A group's row: whose it is and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub state: Id,
    pub scope: String,
    /// `correlate::push_value` of each group-by value.
    pub tuple: Vec<u8>,
}

pub fn group_row(state: &Id, scope: &str, tuple: &[u8]) -> Vec<u8> {
    let mut out = state.to_vec();
    push_text(&mut out, scope);
    out.extend_from_slice(tuple);
    out
}

pub fn read_group(bytes: &[u8]) -> Option<Group> {
    let (state, mut rest) = bytes.split_first_chunk::<16>()?;
    let scope = read_text(&mut rest)?;
    Some(Group { state: *state, scope, tuple: rest.to_vec() })
}

/// Who owns a cell, or that an id was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired {
    /// Rows before this frontier are of no more use.
    pub expires_ms: i64,
    pub incident: Id,
}

pub fn cell_key(group: &Id, cell: i64) -> [u8; 25] {
    let mut key = [b'c'; 25];
    key[1..17].copy_from_slice(group);
    key[17..].copy_from_slice(&time_key(cell));
    key
}

pub fn cells_prefix(group: &Id) -> [u8; 17] {
    let mut key = [b'c'; 17];
    key[1..].copy_from_slice(group);
    key
}

pub fn id_key(id: &Id) -> [u8; 17] {
    let mut key = [b'i'; 17];
    key[1..].copy_from_slice(id);
    key
}

pub fn fired_row(fired: &Fired) -> Vec<u8> {
    [&fired.expires_ms.to_be_bytes()[..], &fired.incident].concat()
}

pub fn read_fired(bytes: &[u8]) -> Option<Fired> {
    let (expires, incident) = bytes.split_first_chunk::<8>()?;
    Some(Fired { expires_ms: i64::from_be_bytes(*expires), incident: incident.try_into().ok()? })
}

/// A window (or a row of runs) to be judged once the frontier reaches `due_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    pub due_ms: i64,
    pub group: Id,
    /// Value of a row of runs; zeros otherwise.
    pub value: Id,
}

pub fn timer_key(timer: &Timer) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&time_key(timer.due_ms));
    key[8..24].copy_from_slice(&timer.group);
    key[24..].copy_from_slice(&timer.value);
    key
}

pub fn read_timer_key(key: &[u8]) -> Option<Timer> {
    let key: [u8; 40] = key.try_into().ok()?;
    let (due, rest) = key.split_first_chunk::<8>()?;
    let (group, value) = rest.split_first_chunk::<16>()?;
    Some(Timer { due_ms: key_time(*due), group: *group, value: value.try_into().ok()? })
}

/// What `new_value` keeps of a value and `absence` of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunsRow {
    pub runs: Runs,
    /// Newest last; tells a repeated delivery from a new event.
    pub recent: Vec<Id>,
    /// Ends of runs up to here have been judged; due time of the one timer on its way (absence).
    pub judged_ms: i64,
    pub timer_ms: Option<i64>,
    /// `push_value` of each value field.
    pub tuple: Vec<u8>,
    /// Of the event that a finding would tell of.
    pub payload: Vec<u8>,
}

/// Identities that a row of runs remembers.
const RECENT: usize = 8;

impl RunsRow {
    pub fn new(tuple: &[u8]) -> Self {
        Self { judged_ms: i64::MIN, tuple: tuple.to_vec(), ..Self::default() }
    }

    pub fn remember(&mut self, identity: Id) {
        if self.recent.len() == RECENT {
            self.recent.remove(0);
        }
        self.recent.push(identity);
    }

    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.tuple.len() + self.payload.len());
        self.runs.write(&mut out);
        out.push(self.recent.len() as u8);
        self.recent.iter().for_each(|id| out.extend_from_slice(id));
        out.extend_from_slice(&self.judged_ms.to_be_bytes());
        out.push(u8::from(self.timer_ms.is_some()));
        out.extend_from_slice(&self.timer_ms.unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&(self.tuple.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.tuple);
        out.extend_from_slice(&self.payload);
        out
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (runs, rest) = Runs::read(bytes)?;
        let (count, rest) = rest.split_first()?;
        let (ids, rest) = rest.split_at_checked(usize::from(*count) * 16)?;
        let recent = ids.chunks_exact(16).map(|id| id.try_into()).collect::<Result<_, _>>().ok()?;
        let (judged, rest) = rest.split_first_chunk::<8>()?;
        let (has_timer, rest) = rest.split_first()?;
        let (timer, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (tuple, payload) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        Some(Self {
            runs,
            recent,
            judged_ms: i64::from_be_bytes(*judged),
            timer_ms: (*has_timer == 1).then(|| i64::from_be_bytes(*timer)),
            tuple: tuple.to_vec(),
            payload: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::FeedId;

    #[test]
    fn keys_read_back() {
        let mut item = Item { time_ms: -5, identity: [7; 16], tag: 300, value: [0; 16] };
        assert_eq!(read_evidence_key(&evidence_key(&[1; 16], &item)), Some(item));
        item.value = [9; 16];
        assert_eq!(read_evidence_key(&evidence_key(&[1; 16], &item)), Some(item));
        assert_eq!(read_evidence_key(&runs_key(&[1; 16], &[2; 16])), None);
        assert!(evidence_key(&[1; 16], &item).as_slice() > &evidence_from(&[1; 16], -5)[..]);
        let timer = Timer { due_ms: 9, group: [3; 16], value: [4; 16] };
        assert_eq!(read_timer_key(&timer_key(&timer)), Some(timer));
    }

    #[test]
    fn values_read_back() {
        let long = "ü".repeat(400);
        let head = Head {
            feed: FeedId(0),
            time_ms: 0,
            arrival_ms: 0,
            identity: [0; 16],
            account: "111122223333",
            region: "eu-west-1",
            event_id: "e",
            source: "rds.amazonaws.com",
            name: &long,
            summary: "",
        };
        let read = read_payload(&payload(&head)).unwrap();
        assert_eq!((read.account.as_str(), read.name.len(), read.summary.as_str()), ("111122223333", 512, ""));
        let mut row = RunsRow::new(b"tuple");
        row.runs.insert(5, 10);
        row.payload = b"payload".to_vec();
        for timer in [None, Some(-3)] {
            row.timer_ms = timer;
            (0..12).for_each(|n| row.remember([n; 16]));
            assert_eq!(RunsRow::read(&row.write()), Some(row.clone()));
        }
        assert_eq!(row.recent.len(), RECENT);
        let group = Group { state: [1; 16], scope: "organization".into(), tuple: vec![0, 1] };
        assert_eq!(read_group(&group_row(&group.state, &group.scope, &group.tuple)), Some(group));
        let fired = Fired { expires_ms: -1, incident: [5; 16] };
        assert_eq!(read_fired(&fired_row(&fired)), Some(fired));
    }
}
