//! The structure of JSON text without parsing it: where an event ends, and the few values that decide which rules can match.
//!
//! In: text at the start of a JSON object, plain or escaped inside a JSON string. Out: `Routing`. Invariant: a value given as
//! `Known` is the one that a full parse finds for that path, and the only one; anything less certain is `Unknown`.
//!
//! Method: 64 bytes at a time become bit masks of quotes, backslashes and brackets (Langdale & Lemire, "Parsing Gigabytes of JSON
//! per Second", 2019); strings are found by a prefix xor, here also one escape level deeper than usual.

use super::simd::{self, Masks};

/// What is known of one path without a parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Only a full parse can tell.
    #[default]
    Unknown,
    /// The path does not occur.
    Missing,
    /// A string without escapes at bytes `start..end` of the text.
    Text { start: u32, end: u32 },
}

impl Known {
    pub fn text<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Known::Text { start, end } => body.get(*start as usize..*end as usize),
            _ => None,
        }
    }
}

/// The values that rules are routed by, each as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routing {
    pub event_source: Known,
    pub event_name: Known,
    /// `userIdentity.type`.
    pub identity_type: Known,
    pub user_agent: Known,
    pub error_code: Known,
}

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

/// Turns blocks of 64 bytes into masks.
pub(super) trait Blocks {
    /// `previous` is the byte before the block.
    fn masks(block: &[u8; 64], previous: u8) -> Masks;
}

#[inline(always)]
pub(super) fn scan_with<B: Blocks, const ESCAPED: bool>(buffer: &[u8], start: usize) -> Option<Scanned> {
    let mut state = State { buffer, start, depth: 0, in_string: false, routing: Routing::missing(), seen: 0, ambiguous: false, values_to: 0 };
    let mut previous_backslashes = 0u64;
    let mut at = start;
    let mut previous = 0u8;
    let mut tail = [0u8; 64];
    while at < buffer.len() {
        let (block, length) = match buffer[at..].first_chunk::<64>() {
            Some(block) => (block, 64),
            None => {
                let rest = &buffer[at..];
                tail[..rest.len()].copy_from_slice(rest);
                (&tail, rest.len())
            }
        };
        let masks = B::masks(block, previous);
        if let Some(done) = state.block::<ESCAPED>(at, length, &masks, previous_backslashes) {
            return done.finish::<ESCAPED>(&state);
        }
        previous_backslashes = masks.backslash >> 62;
        previous = block[63];
        at += 64;
    }
    None
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

impl Routing {
    fn missing() -> Self {
        let m = Known::Missing;
        Self { event_source: m, event_name: m, identity_type: m, user_agent: m, error_code: m }
    }
}

#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

#[inline(always)]
fn below(bit: u32) -> u64 {
    (1u64 << bit).wrapping_sub(1)
}

impl State<'_> {
    /// One block. `carried`: the last two bits of the block before's backslashes.
    #[inline(always)]
    fn block<const ESCAPED: bool>(&mut self, at: usize, length: usize, masks: &Masks, carried: u64) -> Option<Stop> {
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
        let strings = prefix_xor(delimiters) ^ if self.in_string { u64::MAX } else { 0 };
        let open = masks.open & !strings & valid;
        let close = masks.close & !strings & valid;
        let candidates = masks.candidate & strings & valid;
        if candidates != 0 {
            self.candidates::<ESCAPED>(at, candidates, open, close);
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
            let run = self.buffer[self.start..quote].iter().rev().take_while(|&&b| b == b'\\').count();
            if ESCAPED {
                if run % 2 == 0 {
                    *ends |= 1 << bit;
                } else if (run - 1) / 2 % 2 == 0 {
                    *delimiters |= 1 << bit;
                }
            } else if run % 2 == 0 {
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
            let run = self.buffer[self.start..letter].iter().rev().take_while(|&&b| b == b'\\').count();
            let outer = ESCAPED && run % 2 == 1;
            let inner = if ESCAPED { run / 2 % 2 == 1 } else { run % 2 == 1 };
            if self.ambiguous || outer {
                self.ambiguous = true;
            } else if inner && letter >= self.values_to {
                self.ambiguous = self.in_key::<ESCAPED>(letter);
            }
        }
    }

    /// Is the string around `from` followed by a colon? Unsure counts as yes.
    fn in_key<const ESCAPED: bool>(&mut self, from: usize) -> bool {
        let mut at = from;
        while let Some(step) = memchr::memchr(b'"', &self.buffer[at..]) {
            let quote = at + step;
            let run = self.buffer[self.start..quote].iter().rev().take_while(|&&b| b == b'\\').count();
            let delimiter = if ESCAPED { run % 2 == 0 || (run - 1) / 2 % 2 == 0 } else { run % 2 == 0 };
            if delimiter {
                self.values_to = quote;
                return !matches!(self.buffer.get(quote + 1), Some(b',' | b'}' | b']'));
            }
            at = quote + 1;
        }
        true
    }

    #[inline(always)]
    fn candidates<const ESCAPED: bool>(&mut self, at: usize, mut candidates: u64, open: u64, close: u64) {
        while candidates != 0 {
            let bit = candidates.trailing_zeros();
            candidates &= candidates - 1;
            let depth = self.depth + i64::from((open & below(bit)).count_ones()) - i64::from((close & below(bit)).count_ones());
            if depth == 1 || depth == 2 {
                self.candidate::<ESCAPED>(at + bit as usize, depth);
            }
        }
    }

    /// `at` is the second letter of a pair that occurs in a routing key.
    fn candidate<const ESCAPED: bool>(&mut self, at: usize, depth: i64) {
        let (key, offset): (&[u8], usize) = match self.buffer[at] {
            b'S' => (b"eventSource", 5),
            b'N' => (b"eventName", 5),
            b'I' => (b"userIdentity", 4),
            b'A' => (b"userAgent", 4),
            b'C' => (b"errorCode", 5),
            _ => (b"type", 3),
        };
        let type_key = offset == 3;
        if (depth == 2) != type_key {
            return;
        }
        let quotes = if ESCAPED { 2 } else { 1 };
        let Some(first) = at.checked_sub(offset).filter(|f| *f >= self.start + quotes) else { return };
        if !self.buffer[first..].starts_with(key) || !opens::<ESCAPED>(self.buffer, self.start, first) {
            return;
        }
        let Some(after) = closes::<ESCAPED>(self.buffer, first + key.len()) else { return };
        match self.buffer.get(after) {
            Some(b':') => {}
            // A string value, not a key.
            Some(b',' | b'}' | b']') => return,
            _ => {
                self.ambiguous = true;
                return;
            }
        }
        self.key::<ESCAPED>(self.buffer[at], after + 1);
    }

    /// A routing key at its own depth; its value begins at `value`.
    fn key<const ESCAPED: bool>(&mut self, letter: u8, value: usize) {
        let bit = match letter {
            b'S' => 1,
            b'N' => 2,
            b'I' => 4,
            b'A' => 8,
            b'C' => 16,
            _ => {
                // `type` at depth 2: harmless only where it is the one that was read behind `userIdentity`.
                let quotes = if ESCAPED { 2 } else { 1 };
                let read = matches!(self.routing.identity_type, Known::Text { start, .. } if self.start + start as usize == value + quotes);
                if !read {
                    self.routing.identity_type = Known::Unknown;
                    self.seen |= 32;
                }
                return;
            }
        };
        let again = self.seen & bit != 0;
        self.seen |= bit;
        let known = if again { Known::Unknown } else { string_value::<ESCAPED>(self.buffer, self.start, value) };
        match letter {
            b'S' => self.routing.event_source = known,
            b'N' => self.routing.event_name = known,
            b'A' => self.routing.user_agent = known,
            b'C' => self.routing.error_code = known,
            _ => self.routing.identity_type = if again { Known::Unknown } else { self.identity_type::<ESCAPED>(value) },
        }
    }

    /// `{"type":"…"` directly behind `userIdentity`.
    fn identity_type<const ESCAPED: bool>(&self, value: usize) -> Known {
        let lead: &[u8] = if ESCAPED { br#"{\"type\":"# } else { br#"{"type":"# };
        if self.seen & 32 == 0 && self.buffer[value..].starts_with(lead) {
            return string_value::<ESCAPED>(self.buffer, self.start, value + lead.len());
        }
        Known::Unknown
    }
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
    match (u32::try_from(first - start), u32::try_from(end - start)) {
        // An escaped text ends at a bare quote too; then the backslash found is beyond it.
        (Ok(start), Ok(end)) if closed && !(ESCAPED && buffer[first..first + (end - start) as usize].contains(&b'"')) => Known::Text { start, end },
        _ => Known::Unknown,
    }
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
