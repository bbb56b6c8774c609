//! The structure of JSON text without parsing it: where an event ends, and the few values that decide which rules can match.
//!
//! In: text at the start of a JSON object, plain or escaped inside a JSON string. Out: `Routing`. Invariant: a value given as
//! `Known` is the one that a full parse finds for that path, and the only one; anything less certain is `Unknown`.
//!
//! Method: 64 bytes at a time become bit masks of quotes, backslashes and brackets (Langdale & Lemire, "Parsing Gigabytes of JSON
//! per Second", 2019); strings are found by a prefix xor, here also one escape level deeper than usual.

mod canonical;
mod late;
mod routing;
mod skip;

pub use late::only_value;
pub(super) use late::read_only as read_only_with;
use routing::Identity;
pub use routing::{Known, Routing};
pub(super) use skip::skip as skip_with;

use super::simd::{self, Masks};

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Plain,
    /// Inside a JSON string: `"` is `\"`, `\` is `\\`.
    Escaped,
}

/// The end of an object and what was seen on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    pub routing: Routing,
    /// Plain: one past the closing bracket. Escaped: the string's closing quote.
    pub end: usize,
    /// The text is one object and nothing else. If false, every routing value is `Unknown`.
    pub whole: bool,
}

/// Scans the object that starts at `buffer[start]`; `None` if it doesn't end within the buffer.
pub fn scan(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
    simd::run(buffer, start, level)
}

/// `readOnly` of an object of which `scan` knew some routing value. It stands near a record's end, hence apart from the others.
pub fn read_only(body: &[u8], level: Level) -> Known {
    simd::read_only(body, level).unwrap_or_default()
}

/// The bytes before a block that its masks depend on.
pub(super) const LEAD: usize = 2;
/// A block of 64 bytes behind its lead.
pub(super) type Window = [u8; LEAD + 64];

/// The window of the block at `at`, zeros where the buffer has no bytes.
#[inline(always)]
fn window<'w>(buffer: &'w [u8], at: usize, room: &'w mut Window) -> &'w Window {
    if let Some(window) = at.checked_sub(LEAD).and_then(|from| buffer[from..].first_chunk()) {
        return window;
    }
    *room = [0; LEAD + 64];
    let (from, to) = (at.saturating_sub(LEAD), buffer.len().min(at + 64));
    room[LEAD - (at - from)..][..to - from].copy_from_slice(&buffer[from..to]);
    room
}

/// Turns blocks of 64 bytes into masks.
pub(super) trait Blocks {
    fn masks(window: &Window) -> Masks;
    /// Quotes and backslashes.
    fn stops(block: &[u8; 32]) -> u32;
    fn backslashes(block: &[u8; 64]) -> u64;
    /// Inside an escaped text: quotes that may end it (no backslash or more than one before them), `u` behind a backslash, and
    /// `Masks::candidate`.
    fn attention(window: &Window) -> u64;
    /// Bit i of the answer: is the number of set bits up to i odd?
    fn prefix_xor(bits: u64) -> u64;
}

#[inline(always)]
pub(super) fn scan_with<B: Blocks, const ESCAPED: bool>(buffer: &[u8], start: usize) -> Option<Scanned> {
    match canonical::scan::<B, ESCAPED>(buffer, start) {
        Some(scanned) => Some(scanned),
        None => general::<B, ESCAPED>(buffer, start),
    }
}

#[inline(never)]
fn general<B: Blocks, const ESCAPED: bool>(buffer: &[u8], start: usize) -> Option<Scanned> {
    State::new(buffer, start).run::<B, ESCAPED>(start)
}

/// Where a block's scan stopped.
enum Stop {
    /// Plain: the closing bracket's index. Escaped: of the bracket that closed the object.
    Closed(usize),
    /// Escaped only: the string ended before the object did.
    Cut(usize),
}

impl Stop {
    #[inline(always)]
    fn finish<const ESCAPED: bool>(self, state: &State<'_>) -> Option<Scanned> {
        let unknown = Routing::default();
        match self {
            Stop::Cut(end) => Some(Scanned { routing: unknown, end, whole: false }),
            Stop::Closed(at) if !ESCAPED => {
                Some(Scanned { routing: if state.ambiguous { unknown } else { state.routing }, end: at + 1, whole: true })
            }
            Stop::Closed(at) => {
                let end = string_end(state.buffer, at + 1)?;
                let whole = only_space(&state.buffer[at + 1..end]);
                Some(Scanned { routing: if whole && !state.ambiguous { state.routing } else { unknown }, end, whole })
            }
        }
    }
}

struct State<'a> {
    buffer: &'a [u8],
    start: usize,
    depth: i64,
    in_string: bool,
    routing: Routing,
    /// Bits of the keys met so far at their own place.
    seen: u8,
    ambiguous: bool,
    /// Up to here `\u` escapes are known to stand in values.
    values_to: usize,
}

#[inline(always)]
fn below(bit: u32) -> u64 {
    (1u64 << bit).wrapping_sub(1)
}

impl<'a> State<'a> {
    #[inline(always)]
    fn new(buffer: &'a [u8], start: usize) -> Self {
        let routing = Routing::missing();
        Self { buffer, start, depth: 0, in_string: false, routing, seen: 0, ambiguous: false, values_to: 0 }
    }

    /// From `at`, which is outside of strings.
    #[inline(always)]
    fn run<B: Blocks, const ESCAPED: bool>(mut self, mut at: usize) -> Option<Scanned> {
        let buffer = self.buffer;
        let mut carried = 0u64;
        let mut room = [0; LEAD + 64];
        while at < buffer.len() {
            let masks = B::masks(window(buffer, at, &mut room));
            if let Some(done) = self.block::<B, ESCAPED>(at, buffer.len() - at, &masks, carried) {
                return done.finish::<ESCAPED>(&self);
            }
            carried = masks.backslash >> 62;
            at += 64;
        }
        None
    }

    /// One block. `carried`: the last two bits of the block before's backslashes.
    #[inline(always)]
    fn block<B: Blocks, const ESCAPED: bool>(&mut self, at: usize, length: usize, masks: &Masks, carried: u64) -> Option<Stop> {
        let one = masks.backslash << 1 | carried >> 1;
        let two = masks.backslash << 2 | carried;
        let quote = masks.quote;
        let hard = quote & one & two;
        let (mut delimiters, mut ends) = if ESCAPED { (quote & one & !two, quote & !one) } else { (quote & !one, 0) };
        if hard != 0 {
            self.classify::<ESCAPED>(at, hard, &mut delimiters, &mut ends);
        }
        let valid = if ends != 0 {
            below(ends.trailing_zeros())
        } else if length < 64 {
            below(length as u32)
        } else {
            u64::MAX
        };
        let strings = B::prefix_xor(delimiters) ^ if self.in_string { u64::MAX } else { 0 };
        let open = masks.open & !strings & valid;
        let close = masks.close & !strings & valid;
        let candidates = masks.candidate & strings & valid;
        if candidates != 0 {
            self.candidates::<B, ESCAPED>(at, candidates, open, close);
        }
        if (masks.unicode & one & valid) != 0 {
            self.unicode::<ESCAPED>(at, masks.unicode & one & valid);
        }
        let closing = i64::from(close.count_ones());
        if self.depth <= closing
            && let Some(closed) = self.closes_at(open, close)
        {
            return Some(Stop::Closed(at + closed as usize));
        }
        self.depth += i64::from(open.count_ones()) - closing;
        self.in_string = strings >> 63 != 0;
        (ends != 0).then(|| Stop::Cut(at + ends.trailing_zeros() as usize))
    }

    /// Quotes behind two or more backslashes: counts the run.
    #[cold]
    fn classify<const ESCAPED: bool>(&self, at: usize, mut hard: u64, delimiters: &mut u64, ends: &mut u64) {
        while hard != 0 {
            let bit = hard.trailing_zeros();
            hard &= hard - 1;
            let quote = at + bit as usize;
            let run = run_before(self.buffer, self.start, quote);
            if ESCAPED {
                if run.is_multiple_of(2) {
                    *ends |= 1 << bit;
                } else if ((run - 1) / 2).is_multiple_of(2) {
                    *delimiters |= 1 << bit;
                }
            } else if run.is_multiple_of(2) {
                *delimiters |= 1 << bit;
            }
        }
    }

    /// The bit at which the depth returns to zero.
    fn closes_at(&self, open: u64, close: u64) -> Option<u32> {
        let mut depth = self.depth;
        let mut rest = open | close;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            depth += if open >> bit & 1 != 0 { 1 } else { -1 };
            if depth <= 0 {
                return Some(bit);
            }
        }
        None
    }

    /// A `\u` escape in a key can spell a routing key in other letters; one outside strings or at the outer level can spell anything.
    #[cold]
    fn unicode<const ESCAPED: bool>(&mut self, at: usize, mut hits: u64) {
        while hits != 0 {
            let bit = hits.trailing_zeros();
            hits &= hits - 1;
            let letter = at + bit as usize;
            let run = run_before(self.buffer, self.start, letter);
            let outer = ESCAPED && run % 2 == 1;
            let inner = if ESCAPED { run / 2 % 2 == 1 } else { run % 2 == 1 };
            if self.ambiguous || outer {
                self.ambiguous = true;
            } else if inner && letter >= self.values_to {
                self.ambiguous = in_key::<ESCAPED>(self.buffer, self.start, letter, &mut self.values_to);
            }
        }
    }

    #[inline(always)]
    fn candidates<B: Blocks, const ESCAPED: bool>(&mut self, at: usize, mut candidates: u64, open: u64, close: u64) {
        while candidates != 0 {
            let bit = candidates.trailing_zeros();
            candidates &= candidates - 1;
            let depth = self.depth + i64::from((open & below(bit)).count_ones()) - i64::from((close & below(bit)).count_ones());
            if depth == 1 {
                self.candidate::<B, ESCAPED>(at + bit as usize);
            }
        }
    }

    /// `at` is a letter that may be the one by which a routing key is found.
    #[inline(never)]
    fn candidate<B: Blocks, const ESCAPED: bool>(&mut self, at: usize) {
        let Some((key, first)) = key_at(self.buffer, at) else { return };
        if first < self.start + if ESCAPED { 2 } else { 1 } || !opens::<ESCAPED>(self.buffer, self.start, first) {
            return;
        }
        let end = first + key.name().len();
        if key == Key::Identity && self.buffer.get(end) == Some(&b'.') {
            // `userIdentity.type` as one key counts where there is no `type` in `userIdentity`.
            self.forget_identity();
            return;
        }
        let Some(after) = closes::<ESCAPED>(self.buffer, end) else { return };
        match self.buffer.get(after) {
            Some(b':') => {}
            // A string value, not a key.
            Some(b',' | b'}' | b']') => return,
            _ => {
                self.ambiguous = true;
                return;
            }
        }
        self.key::<B, ESCAPED>(key, after + 1);
    }

    fn forget_identity(&mut self) {
        self.seen |= Key::Identity as u8;
        self.routing.identity_type = Known::Unknown;
        self.routing.identity_arn = Known::Unknown;
        self.routing.access_key = Known::Unknown;
        self.routing.identity_account = Known::Unknown;
        self.routing.issuer_type = Known::Unknown;
    }

    /// A routing key at its own depth; its value begins at `value`.
    fn key<B: Blocks, const ESCAPED: bool>(&mut self, key: Key, value: usize) {
        let again = self.seen & key as u8 != 0;
        self.seen |= key as u8;
        let place = match key {
            Key::Source => &mut self.routing.event_source,
            Key::Name => &mut self.routing.event_name,
            Key::Agent => &mut self.routing.user_agent,
            Key::Error => &mut self.routing.error_code,
            Key::Address => &mut self.routing.source_address,
            Key::Identity => {
                self.forget_identity();
                if !again && let Some(identity) = canonical::identity::<B, ESCAPED>(self.buffer, self.start, value) {
                    self.routing.identify(identity);
                }
                return;
            }
        };
        *place = if again { Known::Unknown } else { string_value::<ESCAPED>(self.buffer, self.start, value) };
    }
}

/// The keys at depth 1 that lead to routing values. Each is one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Source = 1,
    Name = 2,
    Identity = 4,
    Agent = 8,
    Error = 16,
    Address = 32,
}

impl Key {
    fn name(self) -> &'static [u8] {
        match self {
            Key::Source => b"eventSource",
            Key::Name => b"eventName",
            Key::Identity => b"userIdentity",
            Key::Agent => b"userAgent",
            Key::Error => b"errorCode",
            Key::Address => b"sourceIPAddress",
        }
    }
}

/// The routing key that is found by the letter at `at`, and where it begins.
fn key_at(buffer: &[u8], at: usize) -> Option<(Key, usize)> {
    let (key, offset) = match buffer[at] {
        b'S' => (Key::Source, 5),
        b'N' => (Key::Name, 5),
        b'y' => (Key::Identity, 11),
        b'A' => (Key::Agent, 4),
        b'd' => (Key::Error, 7),
        b'P' => (Key::Address, 7),
        _ => return None,
    };
    let first = at.checked_sub(offset)?;
    buffer[first..].starts_with(key.name()).then_some((key, first))
}

/// How many backslashes stand right before `at`.
fn run_before(buffer: &[u8], start: usize, at: usize) -> usize {
    buffer[start..at].iter().rev().take_while(|&&b| b == b'\\').count()
}

/// Is the string around `from` followed by a colon? Unsure counts as yes. `values_to`: where the string ends, if it is a value.
fn in_key<const ESCAPED: bool>(buffer: &[u8], start: usize, from: usize, values_to: &mut usize) -> bool {
    let mut at = from;
    while let Some(step) = memchr::memchr(b'"', &buffer[at..]) {
        let quote = at + step;
        let run = run_before(buffer, start, quote);
        let delimiter = if ESCAPED { run.is_multiple_of(2) || ((run - 1) / 2).is_multiple_of(2) } else { run.is_multiple_of(2) };
        if delimiter {
            *values_to = quote;
            return !matches!(buffer.get(quote + 1), Some(b',' | b'}' | b']'));
        }
        at = quote + 1;
    }
    true
}

/// Is there a string's opening quote right before `first`?
fn opens<const ESCAPED: bool>(buffer: &[u8], start: usize, first: usize) -> bool {
    if !ESCAPED {
        return buffer[first - 1] == b'"' && (first - 1 == start || buffer[first - 2] != b'\\');
    }
    buffer[first - 1] == b'"' && buffer[first - 2] == b'\\' && (first - 2 == start || buffer[first - 3] != b'\\')
}

/// The index behind the closing quote at `at`, if there is one.
fn closes<const ESCAPED: bool>(buffer: &[u8], at: usize) -> Option<usize> {
    let quote: &[u8] = if ESCAPED { br#"\""# } else { br#"""# };
    buffer[at..].starts_with(quote).then_some(at + quote.len())
}

/// The string at `at` if it has no escapes; positions relative to `start`.
fn string_value<const ESCAPED: bool>(buffer: &[u8], start: usize, at: usize) -> Known {
    let Some(first) = closes::<ESCAPED>(buffer, at) else { return Known::Unknown };
    let end = if ESCAPED { memchr::memchr(b'\\', &buffer[first..]) } else { memchr::memchr2(b'"', b'\\', &buffer[first..]) };
    let Some(end) = end.map(|e| first + e) else { return Known::Unknown };
    let closed = if ESCAPED { buffer.get(end + 1) == Some(&b'"') } else { buffer[end] == b'"' };
    // An escaped text ends at a bare quote too; then the backslash found is beyond it.
    if closed && !(ESCAPED && buffer[first..end].contains(&b'"')) { Known::between(first - start, end - start) } else { Known::Unknown }
}

/// The index of the quote that ends the JSON string whose content goes on at `from`.
pub fn string_end(buffer: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let hit = at + memchr::memchr2(b'"', b'\\', buffer.get(at..)?)?;
        if buffer[hit] == b'"' {
            return Some(hit);
        }
        at = hit + 2;
    }
}

/// White space, or white space written as escapes.
fn only_space(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return true,
            [b'\\', b'n' | b'r' | b't', tail @ ..] => rest = tail,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
