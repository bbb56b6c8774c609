//! Lines to entries: where each prefixed entry begins and ends, and whether its prefix can be believed.
//!
//! In: the batch's text. Out: entries in order. Invariant: a line stands as written only if no other reading of its prefix is
//! possible; a second reading is decided by the message (which repeats an odd name) or not at all.

use super::{
    NONE, names,
    prefix::{self, Candidate, MOST, REACH, Range, Severity, Start},
};

/// How far an entry can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Plain,
    /// Somebody tried; what the server meant is nevertheless clear.
    Forged,
    /// What the server meant can't be told.
    Doubtful,
    /// No prefix: the continuation of something that came before this batch.
    Loose,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub start: u32,
    /// Behind the last byte, without the newline.
    pub end: u32,
    pub user: Range,
    pub database: Range,
    pub remote: Range,
    pub pid_text: Range,
    pub pid: u32,
    pub severity: Severity,
    pub body: u32,
    pub state: Range,
    pub session: Range,
    pub application: Range,
    pub standing: Standing,
    time: Option<i64>,
    /// Next entry of the same message.
    pub next: u32,
    /// Belongs to a message before it.
    pub linked: bool,
}

impl Entry {
    pub(super) fn time_ms(&self) -> Option<i64> {
        self.time
    }

    fn bare(start: usize, standing: Standing, time: Option<i64>) -> Self {
        let none = (0, 0);
        Self {
            start: start as u32,
            end: 0,
            user: none,
            database: none,
            remote: none,
            pid_text: none,
            pid: 0,
            severity: Severity::Log,
            body: start as u32,
            state: none,
            session: none,
            application: none,
            standing,
            time,
            next: NONE,
            linked: false,
        }
    }

    fn read(text: &[u8], at: usize, start: &Start, found: &Candidate, standing: Standing) -> Self {
        let pid = &text[found.pid.0 as usize..found.pid.1 as usize];
        Self {
            user: (start.user as u32, found.sign as u32),
            database: (found.sign as u32 + 1, found.at as u32),
            remote: start.remote,
            pid_text: found.pid,
            pid: super::super::scan::number(pid).unwrap_or_default() as u32,
            severity: found.severity,
            body: found.body as u32,
            state: found.state,
            session: found.session,
            application: found.application,
            ..Self::bare(at, if found.ambiguous { Standing::Doubtful } else { standing }, start.time_ms)
        }
    }
}

/// Where a candidate's line stands to the line that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Own,
    /// A later line that begins like no log line does.
    Raw,
    /// A later line that begins as a log line does.
    Foreign,
}

/// Every reading of one line's prefix.
struct Readings {
    list: [Option<(Candidate, Line)>; MOST],
    count: usize,
    own: usize,
    raw: usize,
}

/// Fills `entries` with the entries of `text`.
pub(super) fn split(text: &[u8], entries: &mut Vec<Entry>) {
    entries.clear();
    let mut at = 0;
    while at < text.len() {
        let line_end = line_end(text, at);
        if let Some(start) = prefix::start(text, at) {
            close(entries, at);
            let (entry, behind) = read(text, at, line_end, &start);
            entries.push(entry);
            at = behind;
            continue;
        }
        if entries.is_empty() {
            let mut standing = Standing::Loose;
            for long in [false, true] {
                prefix::candidates(text, at, line_end, long, |_| standing = Standing::Doubtful);
            }
            entries.push(Entry::bare(at, standing, None));
        }
        at = line_end + 1;
    }
    close(entries, text.len() + usize::from(text.last() != Some(&b'\n')));
}

fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end)
}

/// Ends the last entry before the newline that stands before `at`.
fn close(entries: &mut [Entry], at: usize) {
    if let Some(last) = entries.last_mut() {
        last.end = (at as u32).saturating_sub(1).max(last.start);
    }
}

/// The entry that begins at `at`, and the line behind its prefix.
fn read(text: &[u8], at: usize, line_end: usize, start: &Start) -> (Entry, usize) {
    let readings = collect(text, line_end, start);
    let behind = |offset: usize| self::line_end(text, offset) + 1;
    if readings.count == 1
        && let Some((found, Line::Own)) = readings.list[0]
    {
        return (Entry::read(text, at, start, &found, Standing::Plain), line_end + 1);
    }
    // A later line that begins as a log line does is most likely one, unless its message repeats a name that began here.
    let chosen = readings.list[..readings.count]
        .iter()
        .flatten()
        .rev()
        .find(|(found, line)| names::repeats(text, start.user, found, *line == Line::Foreign && readings.own > 0));
    if let Some((found, _)) = chosen {
        return (Entry::read(text, at, start, found, Standing::Forged), behind(found.body));
    }
    if readings.own == 1
        && readings.raw == 0
        && let Some((found, Line::Own)) = readings.list[0]
    {
        return (Entry::read(text, at, start, &found, Standing::Plain), line_end + 1);
    }
    match readings.list[0] {
        Some((found, Line::Raw)) if readings.count == 1 => (Entry::read(text, at, start, &found, Standing::Forged), behind(found.body)),
        _ => {
            // Everything that the odd name may have spoilt is one doubtful entry.
            let last = readings.list[..readings.count].iter().flatten().rfind(|(_, line)| *line != Line::Foreign);
            let first = readings.list[0].filter(|_| readings.own == 0);
            let reach = last.map_or(0, |(found, _)| found.body).max(first.map_or(0, |(found, _)| found.body)).max(line_end);
            (Entry::bare(at, Standing::Doubtful, start.time_ms), behind(reach.min(text.len())))
        }
    }
}

/// Every place within reach where the prefix that begins at `start` may end.
fn collect(text: &[u8], line_end: usize, start: &Start) -> Readings {
    let mut readings = Readings { list: [None; MOST], count: 0, own: 0, raw: 0 };
    let own_limit = line_end;
    let mut add = |found: Candidate, line: Line| {
        readings.own += usize::from(line == Line::Own);
        readings.raw += usize::from(line == Line::Raw);
        // The last place is the one that counts, so it always stays.
        let place = readings.count.min(MOST - 1);
        readings.list[place] = Some((found, line));
        readings.count = place + 1;
    };
    prefix::candidates(text, start.user, own_limit, start.long, |found| add(found, Line::Own));
    let mut at = line_end + 1;
    while at < text.len() && at <= start.user + REACH {
        let end = self::line_end(text, at);
        let line = if prefix::start(text, at).is_some() { Line::Foreign } else { Line::Raw };
        prefix::candidates(text, start.user, end, start.long, |found| {
            if found.at >= at {
                add(found, line);
            }
        });
        at = end + 1;
    }
    readings
}
