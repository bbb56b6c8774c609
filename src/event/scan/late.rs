//! Values that stand near a record's end, looked for only where rules ask for them.
//!
//! In: the text of one object. Out: as `Known`. Invariant: as `scan`'s, given that no key in the text has escaped letters.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::{Blocks, Known, LEAD, Level, closes, only_space, opens, string_value, window};

static READ_ONLY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("readOnly"));

/// The string under the one key of this name, on whatever level; missing if the letters don't occur.
pub fn only_value(body: &[u8], level: Level, key: &Finder<'_>) -> Known {
    let Some(first) = key.find(body) else { return Known::Missing };
    let end = first + key.needle().len();
    if key.find(&body[end..]).is_some() {
        return Known::Unknown;
    }
    match level {
        Level::Plain => keyed::<false>(body, first, end),
        Level::Escaped => keyed::<true>(body, first, end),
    }
}

fn keyed<const ESCAPED: bool>(body: &[u8], first: usize, end: usize) -> Known {
    let value = closes::<ESCAPED>(body, end).filter(|at| first > 2 && opens::<ESCAPED>(body, 0, first) && body.get(*at) == Some(&b':'));
    value.map_or(Known::Unknown, |at| string_value::<ESCAPED>(body, 0, at + 1))
}

/// `None` where only a full parse can tell.
#[inline(always)]
pub(in super::super) fn read_only<B: Blocks, const ESCAPED: bool>(body: &[u8]) -> Option<Known> {
    let name = READ_ONLY.needle();
    let Some(first) = READ_ONLY.find(body) else { return Some(Known::Missing) };
    let end = first + name.len();
    if READ_ONLY.find(&body[end..]).is_some() {
        return None;
    }
    // Behind a comma or bracket a quote opens a string, whatever stands before.
    let lead: [&[u8]; 2] = if ESCAPED { [br#",\""#, br#"{\""#] } else { [br#",""#, br#"{""#] };
    let opens = lead.iter().any(|lead| body[..first].ends_with(lead));
    let value = closes::<ESCAPED>(body, end).filter(|at| opens && body.get(*at) == Some(&b':'))? + 1;
    let word = [&b"true"[..], b"false"].into_iter().find(|word| body[value..].starts_with(word));
    let (known, behind) = match word {
        Some(word) => (Known::between(value, value + word.len()), value + word.len()),
        None => match string_value::<ESCAPED>(body, 0, value) {
            known @ Known::Text { start, length } => (known, closes::<ESCAPED>(body, start as usize + usize::from(length))?),
            _ => return None,
        },
    };
    // Only at the object's own level does one bracket remain to be closed.
    let closed = end_from::<B, ESCAPED>(body, behind)?;
    (matches!(body.get(behind), Some(b',' | b'}')) && only_space(&body[closed..])).then_some(known)
}

/// One past the bracket that closes what `at` lies in, strings minded; `None` too where escapes stand in strings.
#[inline(always)]
fn end_from<B: Blocks, const ESCAPED: bool>(text: &[u8], mut at: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut carried) = (1i32, 0u64, 0u64);
    let mut room = [0; LEAD + 64];
    while at < text.len() {
        let masks = B::masks(window(text, at, &mut room));
        let one = masks.backslash << 1 | carried >> 1;
        let two = masks.backslash << 2 | carried;
        carried = masks.backslash >> 62;
        let delimiters = masks.quote & if ESCAPED { one } else { !one };
        let strings = B::prefix_xor(delimiters) ^ in_string;
        let odd = if ESCAPED { masks.quote & (!one | two) } else { masks.quote & one };
        if odd != 0 {
            return None;
        }
        let (open, close) = (masks.open & !strings, masks.close & !strings);
        let mut rest = open | close;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            depth += if open >> bit & 1 != 0 { 1 } else { -1 };
            if depth == 0 {
                return Some(at + bit as usize + 1);
            }
            rest &= rest - 1;
        }
        in_string = ((strings as i64) >> 63) as u64;
        at += 64;
    }
    None
}
