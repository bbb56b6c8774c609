//! Small readers of bytes that the log parsers share: numbers, times, cuts.
//!
//! In: bytes of a log line. Out: numbers, milliseconds since the epoch, sub-slices. Invariant: nothing here panics or
//! allocates, whatever the bytes.

/// A time that was read: milliseconds since the epoch as if the text were UTC, and the bytes it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub ms: i64,
    pub len: usize,
    pub has_fraction: bool,
}

/// How many digits stand at the start.
pub fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// A whole decimal number of at most 19 digits.
pub fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 19 {
        return None;
    }
    bytes.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

fn fixed(bytes: &[u8], at: usize, len: usize) -> Option<i64> {
    number(bytes.get(at..at + len)?).map(|value| value as i64)
}

/// Days since 1970-01-01 (Howard Hinnant's civil calendar arithmetic).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Milliseconds of a calendar time; `None` when a part is out of range.
pub fn civil_ms(year: i64, month: i64, day: i64, seconds_of_day: i64) -> Option<i64> {
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    in_range.then(|| (days(year, month, day) * 86_400 + seconds_of_day) * 1000)
}

/// `H:MM:SS` with the hour padded by a blank or a zero, then perhaps `.fraction`.
fn clock(bytes: &[u8]) -> Option<(i64, i64, usize, bool)> {
    let blank = bytes.first() == Some(&b' ');
    let hour = if blank { fixed(bytes, 1, 1)? } else { fixed(bytes, 0, 2)? };
    if bytes.get(2) != Some(&b':') || bytes.get(5) != Some(&b':') {
        return None;
    }
    let (minute, second) = (fixed(bytes, 3, 2)?, fixed(bytes, 6, 2)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    if bytes.get(8) != Some(&b'.') || !bytes.get(9).is_some_and(u8::is_ascii_digit) {
        return Some((seconds, 0, 8, false));
    }
    let count = digits(&bytes[9..]);
    let ms = bytes[9..9 + count].iter().chain(b"000").take(3).fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
    Some((seconds, ms, 9 + count, true))
}

/// Milliseconds of the day of `HH:MM:SS[.fraction]` at the start.
pub fn clock_ms(bytes: &[u8]) -> Option<i64> {
    clock(bytes).map(|(seconds, ms, ..)| seconds * 1000 + ms)
}

/// `YYYY-MM-DD HH:MM:SS[.fraction]`, with a blank or `T` between.
pub fn date_time(bytes: &[u8]) -> Option<Stamp> {
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') || !matches!(bytes.get(10), Some(b' ' | b'T')) {
        return None;
    }
    let (year, month, day) = (fixed(bytes, 0, 4)?, fixed(bytes, 5, 2)?, fixed(bytes, 8, 2)?);
    let (seconds, ms, len, has_fraction) = clock(&bytes[11..])?;
    Some(Stamp { ms: civil_ms(year, month, day, seconds)? + ms, len: 11 + len, has_fraction })
}

/// `YYYYMMDD HH:MM:SS` (eight digits) or `YYMMDD HH:MM:SS` (six).
pub fn compact_date_time(bytes: &[u8]) -> Option<Stamp> {
    let wide = digits(bytes);
    let (year, at) = match wide {
        8 => (fixed(bytes, 0, 4)?, 4),
        6 => (2000 + fixed(bytes, 0, 2)?, 2),
        _ => return None,
    };
    if bytes.get(wide) != Some(&b' ') {
        return None;
    }
    let (month, day) = (fixed(bytes, at, 2)?, fixed(bytes, at + 2, 2)?);
    let (seconds, ms, len, has_fraction) = clock(&bytes[wide + 1..])?;
    Some(Stamp { ms: civil_ms(year, month, day, seconds)? + ms, len: wide + 1 + len, has_fraction })
}

/// Milliseconds east of UTC of a zone as servers print it: `Z`, `UTC`, `CET`, `+03`, `-03:30`. `None` for a name not known.
pub fn zone_ms(zone: &[u8]) -> Option<i64> {
    const HOUR: i64 = 3_600_000;
    Some(match zone {
        b"UTC" | b"GMT" | b"Z" | b"" | b"WET" => 0,
        b"CET" | b"BST" | b"WEST" => HOUR,
        b"CEST" | b"EET" | b"SAST" => 2 * HOUR,
        b"EEST" | b"MSK" => 3 * HOUR,
        b"JST" | b"KST" => 9 * HOUR,
        b"AEST" => 10 * HOUR,
        b"AEDT" => 11 * HOUR,
        b"EST" => -5 * HOUR,
        b"EDT" => -4 * HOUR,
        b"CDT" => -5 * HOUR,
        b"MDT" | b"PST" => -8 * HOUR + if zone == b"MDT" { 2 * HOUR } else { 0 },
        b"MST" | b"PDT" => -7 * HOUR,
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let hours = number(rest.get(..2)?)? as i64;
            let rest = &rest[2..];
            let minutes = match rest.strip_prefix(b":").unwrap_or(rest) {
                [] => 0,
                minutes => number(minutes.get(..2)?)? as i64,
            };
            let ms = hours * HOUR + minutes * 60_000;
            if *sign == b'-' { -ms } else { ms }
        }
        _ => return None,
    })
}

/// The line at `at` without its end, and where the next one starts.
pub fn line(text: &[u8], at: usize) -> (&[u8], usize) {
    let rest = &text[at..];
    match memchr::memchr(b'\n', rest) {
        Some(end) => (rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]), at + end + 1),
        None => (rest, text.len()),
    }
}

/// Where `mark` first stands. For a short one the general search takes longer to prepare than to run.
pub fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    match mark {
        [first, rest @ ..] if rest.len() < SHORT_MARK => memchr::memchr_iter(*first, bytes).find(|at| bytes[at + 1..].starts_with(rest)),
        _ => memchr::memmem::find(bytes, mark),
    }
}

/// Marks of up to so many bytes are short.
const SHORT_MARK: usize = 4;

/// Where `mark` last stands.
pub fn rfind(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let Some((last, before)) = mark.split_last() else { return Some(bytes.len()) };
    memchr::memrchr_iter(*last, bytes).find(|at| bytes[..*at].ends_with(before)).map(|at| at - before.len())
}

/// What stands between `from` and the next `to` behind it.
pub fn between<'a>(bytes: &'a [u8], from: &[u8], to: &[u8]) -> Option<&'a [u8]> {
    let start = find(bytes, from)? + from.len();
    let rest = &bytes[start..];
    Some(&rest[..find(rest, to)?])
}

/// Both sides of the first `mark`.
pub fn cut<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(bytes, mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

/// Both sides of the last `mark`.
pub fn cut_last<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = rfind(bytes, mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

/// The word at the start: up to a blank or the end.
pub fn word(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr2(b' ', b'\t', bytes).unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms, len) in [
            ("2026-11-24 02:52:55 UTC", 1_795_488_775_000, 19),
            ("2026-11-24T02:52:55.717543Z", 1_795_488_775_717, 26),
            ("2026-11-24  2:52:55 6 [Warning]", 1_795_488_775_000, 19),
            ("2026-11-24 02:52:55.7", 1_795_488_775_700, 21),
        ] {
            let stamp = date_time(text.as_bytes()).unwrap();
            assert_eq!((stamp.ms, stamp.len), (ms, len), "{text}");
        }
        for (text, len) in [("20261124 02:52:55,vm", 17), ("261124  2:52:55\t", 15)] {
            let stamp = compact_date_time(text.as_bytes()).unwrap();
            assert_eq!((stamp.ms, stamp.len), (1_795_488_775_000, len), "{text}");
        }
        for text in ["", "2026", "2026-13-24 02:52:55", "2026-11-24 25:00:00", "2026-11-24 02:52", "abcd-ef-gh ij:kl:mn"] {
            assert_eq!(date_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn marks() {
        for (text, mark) in [
            ("a,b,,c,,d", ",,"),
            ("", ","),
            ("abc", ""),
            ("aab", "ab"),
            (",'", ",'"),
            ("x ms ms", " ms"),
            ("long marker long marker!", "long marker"),
        ] {
            let (bytes, mark_bytes) = (text.as_bytes(), mark.as_bytes());
            assert_eq!(find(bytes, mark_bytes), text.find(mark), "{text:?} {mark:?}");
            assert_eq!(rfind(bytes, mark_bytes), text.rfind(mark), "{text:?} {mark:?}");
        }
    }

    #[test]
    fn zones() {
        for (zone, hours) in [("UTC", 0.0), ("+03", 3.0), ("-0330", -3.5), ("+05:30", 5.5), ("CET", 1.0), ("PDT", -7.0), ("MDT", -6.0)] {
            assert_eq!(zone_ms(zone.as_bytes()), Some((hours * 3_600_000.0) as i64), "{zone}");
        }
        assert_eq!(zone_ms(b"XYZ"), None);
    }
}
