//! The scan of a record whose members stand in the order in which CloudTrail writes them.
//!
//! In: as `scan`. Out: `Scanned`, or nothing where the text departs from that order or from plain spelling in any way; `scan` then
//! looks at all of it. Invariant: as `scan`'s, which holds here because everything before the last routing value is read word for
//! word, and nothing behind it may look like a routing key.

use super::{Blocks, Identity, Key, Known, LEAD, Routing, Scanned, State, in_key, key_at, only_space, run_before, window};

/// A record's text up to `at` has been read.
struct Reader<'a> {
    buffer: &'a [u8],
    start: usize,
    at: usize,
}

/// A `userIdentity` has up to ten members.
const MAX_MEMBERS: usize = 16;

macro_rules! word {
    ($reader:ident, $escaped:literal, $plain:literal) => {
        if ESCAPED { $reader.word($escaped) } else { $reader.word($plain) }
    };
}

#[inline(always)]
pub(super) fn scan<B: Blocks, const ESCAPED: bool>(buffer: &[u8], start: usize) -> Option<Scanned> {
    let mut reader = Reader { buffer, start, at: start };
    let r = &mut reader;
    word!(r, br#"{\"eventVersion\":\""#, br#"{"eventVersion":""#)?;
    r.text::<B, ESCAPED>()?;
    word!(r, br#",\"userIdentity\":"#, br#","userIdentity":"#)?;
    let mut routing = Routing::missing();
    let begin = r.at;
    routing.identify(r.identity::<B, ESCAPED>()?);
    let identity = Known::between(begin - start, r.at - start);
    word!(r, br#",\"eventTime\":\""#, br#","eventTime":""#)?;
    r.text::<B, ESCAPED>()?;
    word!(r, br#",\"eventSource\":\""#, br#","eventSource":""#)?;
    routing.event_source = r.text::<B, ESCAPED>()?;
    word!(r, br#",\"eventName\":\""#, br#","eventName":""#)?;
    routing.event_name = r.text::<B, ESCAPED>()?;
    word!(r, br#",\"awsRegion\":\""#, br#","awsRegion":""#)?;
    r.text::<B, ESCAPED>()?;
    word!(r, br#",\"sourceIPAddress\":\""#, br#","sourceIPAddress":""#)?;
    routing.source_address = r.text::<B, ESCAPED>()?;
    word!(r, br#",\"userAgent\":\""#, br#","userAgent":""#)?;
    routing.user_agent = r.text::<B, ESCAPED>()?;
    if word!(r, br#",\"errorCode\":\""#, br#","errorCode":""#).is_some() {
        routing.error_code = r.text::<B, ESCAPED>()?;
    }
    if ESCAPED { r.escaped_rest::<B>(Routing { identity, ..routing }) } else { r.plain_rest::<B>(routing) }
}

impl Reader<'_> {
    #[inline(always)]
    fn word<const N: usize>(&mut self, word: &[u8; N]) -> Option<()> {
        (self.buffer[self.at..].first_chunk::<N>()? == word).then(|| self.at += N)
    }

    /// A string without escapes, whose first letter is at hand.
    #[inline(always)]
    fn text<B: Blocks, const ESCAPED: bool>(&mut self) -> Option<Known> {
        let first = self.at;
        let end = self.stop::<B>(first)?;
        let closes = if ESCAPED { self.buffer[end] == b'\\' && *self.buffer.get(end + 1)? == b'"' } else { self.buffer[end] == b'"' };
        if !closes {
            return None;
        }
        self.at = end + if ESCAPED { 2 } else { 1 };
        Some(Known::between(first - self.start, end - self.start))
    }

    /// The first quote or backslash from `from` on.
    #[inline(always)]
    fn stop<B: Blocks>(&self, from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(block) = self.buffer.get(at..)?.first_chunk::<32>() {
            let stops = B::stops(block);
            if stops != 0 {
                return Some(at + stops.trailing_zeros() as usize);
            }
            at += 32;
        }
        self.buffer[at..].iter().position(|b| matches!(b, b'"' | b'\\')).map(|step| at + step)
    }

    /// The object at hand: those of its members that matter, if it and they are spelled plainly.
    #[inline(always)]
    fn identity<B: Blocks, const ESCAPED: bool>(&mut self) -> Option<Identity> {
        let quote: usize = if ESCAPED { 2 } else { 1 };
        let [mut kind, mut arn, mut access_key, mut account, mut issuer_type] = [Known::Missing; 5];
        self.word(b"{")?;
        // First what most identities begin with, in its order.
        if word!(self, br#"\"type\":\""#, br#""type":""#).is_some() {
            kind = self.text::<B, ESCAPED>()?;
            if word!(self, br#",\"principalId\":\""#, br#","principalId":""#).is_some() {
                self.text::<B, ESCAPED>()?;
            }
            if word!(self, br#",\"arn\":\""#, br#","arn":""#).is_some() {
                arn = self.text::<B, ESCAPED>()?;
            }
            if word!(self, br#",\"accountId\":\""#, br#","accountId":""#).is_some() {
                account = self.text::<B, ESCAPED>()?;
            }
            if word!(self, br#",\"accessKeyId\":\""#, br#","accessKeyId":""#).is_some() {
                access_key = self.text::<B, ESCAPED>()?;
            }
            if word!(self, br#",\"sessionContext\":"#, br#","sessionContext":"#).is_some() {
                self.nested::<B, ESCAPED>()?;
            }
            if self.word(b"}").is_some() {
                return Some(Identity { kind, arn, access_key, account, issuer_type });
            }
            self.word(b",")?;
        }
        // At most this many, so that no text is read over and over.
        for _ in 0..MAX_MEMBERS {
            word!(self, br#"\""#, br#"""#)?;
            let first = self.at;
            self.text::<B, ESCAPED>()?;
            let key = &self.buffer[first..self.at - quote];
            self.word(b":")?;
            let begin = self.at;
            let value = if word!(self, br#"\""#, br#"""#).is_some() {
                self.text::<B, ESCAPED>()?
            } else {
                self.nested::<B, ESCAPED>()?;
                Known::Unknown
            };
            let place = match key {
                b"type" => Some(&mut kind),
                b"arn" => Some(&mut arn),
                b"accessKeyId" => Some(&mut access_key),
                b"accountId" => Some(&mut account),
                key if key.starts_with(b"inScopeOf") => {
                    let alone = key == b"inScopeOf" && issuer_type == Known::Missing;
                    issuer_type = if alone { self.issuer_type::<B, ESCAPED>(begin) } else { Known::Unknown };
                    None
                }
                _ => None,
            };
            if let Some(place) = place {
                *place = if *place == Known::Missing && value != Known::Unknown { value } else { return None };
            }
            match *self.buffer.get(self.at)? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(Identity { kind, arn, access_key, account, issuer_type });
                }
                _ => return None,
            }
        }
        None
    }

    /// The `issuerType` of the object that begins at `begin` and ends here.
    #[inline(never)]
    fn issuer_type<B: Blocks, const ESCAPED: bool>(&self, begin: usize) -> Known {
        let object = &self.buffer[begin..self.at];
        let mut reader = Reader { at: begin, ..*self };
        let first = word!(reader, br#"{\"issuerType\":\""#, br#"{"issuerType":""#).and_then(|()| reader.text::<B, ESCAPED>());
        match first {
            Some(known) if memchr::memmem::find_iter(object, "issuerType").count() == 1 && !object.contains(&b'.') => known,
            _ => Known::Unknown,
        }
    }

    /// Steps over the object at hand.
    #[inline(always)]
    fn nested<B: Blocks, const ESCAPED: bool>(&mut self) -> Option<()> {
        if self.buffer.get(self.at) != Some(&b'{') {
            return None;
        }
        let (mut depth, mut in_string) = (0i32, 0u64);
        let (mut carried, mut at) = (0u64, self.at);
        loop {
            let masks = B::masks(self.buffer.get(at - LEAD..)?.first_chunk()?);
            let one = masks.backslash << 1 | carried >> 1;
            let two = masks.backslash << 2 | carried;
            carried = masks.backslash >> 62;
            let delimiters = masks.quote & if ESCAPED { one } else { !one };
            let strings = B::prefix_xor(delimiters) ^ in_string;
            let (open, close) = (masks.open & !strings, masks.close & !strings);
            let mut rest = open | close;
            let mut end = 64;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                depth += if open >> bit & 1 != 0 { 1 } else { -1 };
                if depth == 0 {
                    end = bit + 1;
                    break;
                }
                rest &= rest - 1;
            }
            // Escapes inside its strings are left to the general scan.
            let odd = if ESCAPED { masks.quote & (!one | two) | masks.unicode & one } else { masks.quote & one | masks.unicode & one };
            if odd & (u64::MAX >> (64 - end)) != 0 {
                return None;
            }
            if end < 64 || depth == 0 {
                self.at = at + end as usize;
                return Some(());
            }
            in_string = ((strings as i64) >> 63) as u64;
            at += 64;
        }
    }

    /// Behind the routing values: nothing may spell a routing key again, on whatever level, and the record ends where its string ends.
    #[inline(always)]
    fn escaped_rest<B: Blocks>(&mut self, mut routing: Routing) -> Option<Scanned> {
        (routing.from_console, routing.service_event) = (Known::Missing, Known::Missing);
        let mut at = self.at;
        let mut values_to = 0;
        let mut room = [0; LEAD + 64];
        while at < self.buffer.len() {
            let mut hits = B::attention(window(self.buffer, at, &mut room));
            while hits != 0 {
                let hit = at + hits.trailing_zeros() as usize;
                hits &= hits - 1;
                match self.buffer[hit] {
                    b'F' if self.spells(b"sessionCredentialFromConsole", 17, hit) => routing.from_console = Known::Unknown,
                    b'E' if self.spells(b"AwsServiceEvent", 10, hit) => routing.service_event = Known::Unknown,
                    // It may spell anything.
                    b'u' => routing.service_event = Known::Unknown,
                    _ => {}
                }
                if let Some(end) = self.look(hit, &mut values_to)? {
                    let body = &self.buffer[self.start..end];
                    let close = body.iter().rposition(|b| *b == b'}')?;
                    let whole = only_space(&body[close + 1..]);
                    return whole.then_some(Scanned { routing, end, whole });
                }
            }
            at += 64;
        }
        None
    }

    /// What asked for attention: the string's end, something harmless, or (`None`) something for the general scan.
    #[cold]
    fn look(&self, hit: usize, values_to: &mut usize) -> Option<Option<usize>> {
        let run = run_before(self.buffer, self.start, hit);
        match self.buffer[hit] {
            b'"' => Some(run.is_multiple_of(2).then_some(hit)),
            b'u' if run % 2 == 1 => None,
            b'u' => {
                let escapes = run / 2 % 2 == 1 && hit >= *values_to;
                (!escapes || !in_key::<true>(self.buffer, self.start, hit, values_to)).then_some(None)
            }
            _ => (!self.spells_key(hit)).then_some(None),
        }
    }

    /// Do the letters around `hit`, a capital inside a routing key, spell one up to its end?
    fn spells_key(&self, hit: usize) -> bool {
        key_at(self.buffer, hit).is_some_and(|(key, first)| matches!(self.buffer.get(first + key.name().len()), Some(b'\\' | b'"' | b'.')))
    }

    /// Does `word` stand around `hit`, its letter number `offset`?
    #[cold]
    fn spells(&self, word: &[u8], offset: usize, hit: usize) -> bool {
        hit.checked_sub(offset).is_some_and(|first| self.buffer[first..].starts_with(word))
    }

    /// The rest of a record that stands by itself, its end found by its brackets.
    #[inline(always)]
    fn plain_rest<B: Blocks>(&mut self, routing: Routing) -> Option<Scanned> {
        let error = if routing.error_code == Known::Missing { 0 } else { Key::Error as u8 };
        let seen = [Key::Source, Key::Name, Key::Identity, Key::Agent, Key::Address].iter().fold(error, |seen, key| seen | *key as u8);
        State { depth: 1, routing, seen, ..State::new(self.buffer, self.start) }.run::<B, false>(self.at)
    }
}

/// What matters of the `userIdentity` whose value begins at `at`.
#[inline(never)]
pub(super) fn identity<B: Blocks, const ESCAPED: bool>(buffer: &[u8], start: usize, at: usize) -> Option<Identity> {
    Reader { buffer, start, at }.identity::<B, ESCAPED>()
}
