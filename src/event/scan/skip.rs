//! Steps over one value.
//!
//! In: text, and where an object or array begins. Out: where it ends. Invariant: brackets in strings don't count.

use super::{Blocks, LEAD, window};

/// One past the object or array at `at`. Any other signs may stand inside; only strings are minded.
#[inline(always)]
pub(in super::super) fn skip<B: Blocks>(text: &[u8], mut at: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0u32, 0u64, 0u64);
    let mut room = [0; LEAD + 64];
    while at < text.len() {
        let masks = B::masks(window(text, at, &mut room));
        let strings = B::prefix_xor(masks.quote & !escapes(masks.backslash, &mut escaped)) ^ in_string;
        let (open, close) = (masks.open & !strings, masks.close & !strings);
        if depth <= close.count_ones() {
            let mut rest = open | close;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                if open >> bit & 1 != 0 {
                    depth += 1;
                } else if depth <= 1 {
                    return Some(at + bit as usize + 1);
                } else {
                    depth -= 1;
                }
            }
        } else {
            depth = depth + open.count_ones() - close.count_ones();
        }
        in_string = ((strings as i64) >> 63) as u64;
        at += 64;
    }
    None
}

/// The bytes that a backslash before them escapes. `first`: is the block's first byte one of them, and then of the next block's.
/// The method is that of simdjson: a carry runs through each row of backslashes and tells odd rows from even ones.
#[inline(always)]
fn escapes(backslash: u64, first: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    if backslash == 0 {
        return std::mem::take(first);
    }
    let backslash = backslash & !*first;
    let follows = backslash << 1 | *first;
    let odd_starts = backslash & !EVEN & !follows;
    let (even_rows, carry) = odd_starts.overflowing_add(backslash);
    *first = u64::from(carry);
    (EVEN ^ even_rows << 1) & follows
}
