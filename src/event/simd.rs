//! Bit masks of 64 bytes: with AVX2 where the processor has it, byte by byte elsewhere.
//!
//! In: a block. Out: `Masks`. Invariant: both ways give the same masks (`scan/tests.rs` and the fuzz target compare them).
//! The one module with `unsafe`: `cargo bench --bench core` shows what the vector code gains.
#![allow(unsafe_code)]

use super::json;
use super::scan::{self, Blocks, Known, LEAD, Level, Scanned, Window, read_only_with, scan_with};

/// Bit i stands for byte i of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Masks {
    pub quote: u64,
    pub backslash: u64,
    /// `{` and `[`.
    pub open: u64,
    /// `}` and `]`.
    pub close: u64,
    /// The letter `u`, which behind a backslash is a Unicode escape.
    pub unicode: u64,
    /// One letter of each routing key, and of two words that tell of the caller, with the letter two before it: `LETTERS`, `BEFORE`.
    pub candidate: u64,
}

/// By the low four bits of a byte: the letter that a routing key is found by, or 0. Chosen for how rarely both letters stand so in
/// other text of CloudTrail's: e.P in sourceIPAddress, e.A in userAgent, n.S in eventSource, C.d in errorCode, c.E in AwsServiceEvent,
/// a.F in sessionCredentialFromConsole, i.y in userIdentity, n.N in eventName.
const LETTERS: [u8; 16] = [b'P', b'A', 0, b'S', b'd', b'E', b'F', 0, 0, b'y', 0, 0, 0, 0, b'N', 0];
/// By the same: the letter two before.
const BEFORE: [u8; 16] = [b'e', b'e', 0, b'n', b'C', b'c', b'a', 0, 0, b'i', 0, 0, 0, 0, b'n', 0];

/// Byte by byte: the definition.
pub(super) struct Portable;

impl Blocks for Portable {
    #[inline(always)]
    fn masks(window: &Window) -> Masks {
        let mut masks = Masks { quote: 0, backslash: 0, open: 0, close: 0, unicode: 0, candidate: 0 };
        for i in 0..64 {
            let byte = window[LEAD + i];
            let low = usize::from(byte & 15);
            let letter = LETTERS[low] == byte && BEFORE[low] == window[i];
            masks.quote |= u64::from(byte == b'"') << i;
            masks.backslash |= u64::from(byte == b'\\') << i;
            masks.open |= u64::from(byte == b'{' || byte == b'[') << i;
            masks.close |= u64::from(byte == b'}' || byte == b']') << i;
            masks.unicode |= u64::from(byte == b'u') << i;
            masks.candidate |= u64::from(letter) << i;
        }
        masks
    }

    #[inline(always)]
    fn stops(block: &[u8; 32]) -> u32 {
        block.iter().enumerate().fold(0, |mask, (i, byte)| mask | u32::from(matches!(byte, b'"' | b'\\')) << i)
    }

    #[inline(always)]
    fn backslashes(block: &[u8; 64]) -> u64 {
        block.iter().enumerate().fold(0, |mask, (i, byte)| mask | u64::from(*byte == b'\\') << i)
    }

    #[inline(always)]
    fn attention(window: &Window) -> u64 {
        let masks = Self::masks(window);
        let backslash = |before: usize| window[LEAD - before..][..64].iter().enumerate().fold(0, |mask, (i, b)| mask | u64::from(*b == b'\\') << i);
        let (one, two) = (backslash(1), backslash(2));
        masks.quote & !one | one & (masks.unicode | masks.quote & two) | masks.candidate
    }

    #[inline(always)]
    fn prefix_xor(mut bits: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            bits ^= bits << shift;
        }
        bits
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("pclmulqdq")
}

pub(super) fn run(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the features that `run` is compiled for.
        return unsafe { avx2::run(buffer, start, level) };
    }
    run_with::<Portable>(buffer, start, level)
}

/// See `scan::read_only`.
pub(super) fn read_only(body: &[u8], level: Level) -> Option<Known> {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the features that `read_only` is compiled for.
        return unsafe { avx2::read_only(body, level) };
    }
    read_only_at::<Portable>(body, level)
}

#[inline(always)]
pub(super) fn read_only_at<B: Blocks>(body: &[u8], level: Level) -> Option<Known> {
    match level {
        Level::Plain => read_only_with::<B, false>(body),
        Level::Escaped => read_only_with::<B, true>(body),
    }
}

/// See `json::unescape`.
pub(super) fn unescape(content: &[u8], out: &mut Vec<u8>) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the features that `unescape` is compiled for.
        return unsafe { avx2::unescape(content, out) };
    }
    json::unescape_with::<Portable>(content, out);
}

/// See `scan::skip_with`.
pub(super) fn skip(text: &[u8], at: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has the features that `skip` is compiled for.
        return unsafe { avx2::skip(text, at) };
    }
    scan::skip_with::<Portable>(text, at)
}

/// Quotes and backslashes; bit i stands for byte i.
#[inline(always)]
pub(super) fn stops(block: &[u8; 16]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2; the load is the block.
    unsafe {
        use std::arch::x86_64::*;
        let bytes = _mm_loadu_si128(block.as_ptr().cast());
        let is = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        _mm_movemask_epi8(_mm_or_si128(is(b'"'), is(b'\\'))) as u32
    }
    #[cfg(not(target_arch = "x86_64"))]
    block.iter().enumerate().fold(0, |mask, (i, byte)| mask | u32::from(matches!(byte, b'"' | b'\\')) << i)
}

#[inline(always)]
pub(super) fn run_with<B: Blocks>(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
    match level {
        Level::Plain => scan_with::<B, false>(buffer, start),
        Level::Escaped => scan_with::<B, true>(buffer, start),
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BEFORE, Blocks, Known, LEAD, LETTERS, Level, Masks, Scanned, Window, read_only_at, run_with};

    #[target_feature(enable = "avx2,bmi1,popcnt,pclmulqdq")]
    pub(super) fn run(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
        run_with::<Avx2>(buffer, start, level)
    }

    #[target_feature(enable = "avx2,bmi1,popcnt,pclmulqdq")]
    pub(super) fn unescape(content: &[u8], out: &mut Vec<u8>) {
        super::json::unescape_with::<Avx2>(content, out);
    }

    #[target_feature(enable = "avx2,bmi1,popcnt,pclmulqdq")]
    pub(super) fn skip(text: &[u8], at: usize) -> Option<usize> {
        super::scan::skip_with::<Avx2>(text, at)
    }

    #[target_feature(enable = "avx2,bmi1,popcnt,pclmulqdq")]
    pub(super) fn read_only(body: &[u8], level: Level) -> Option<Known> {
        read_only_at::<Avx2>(body, level)
    }

    /// Only reached through the four above, hence with AVX2 at hand.
    struct Avx2;

    impl Blocks for Avx2 {
        #[inline(always)]
        fn masks(window: &Window) -> Masks {
            // SAFETY: AVX2 is there (see `Avx2`); the loads lie within the window.
            unsafe {
                let (low, high) = load(window, 0);
                let case = _mm256_set1_epi8(0x20);
                let (low_folded, high_folded) = (_mm256_or_si256(low, case), _mm256_or_si256(high, case));
                let (low_before, high_before) = load(window, LEAD);
                Masks {
                    quote: equal(low, high, b'"'),
                    backslash: equal(low, high, b'\\'),
                    open: equal(low_folded, high_folded, b'{'),
                    close: equal(low_folded, high_folded, b'}'),
                    unicode: equal(low, high, b'u'),
                    candidate: join(candidates(low_before, low), candidates(high_before, high)),
                }
            }
        }

        #[inline(always)]
        fn stops(block: &[u8; 32]) -> u32 {
            // SAFETY: AVX2 is there; the load is the block.
            unsafe {
                let bytes = _mm256_loadu_si256(block.as_ptr().cast());
                _mm256_movemask_epi8(_mm256_or_si256(is(bytes, b'"'), is(bytes, b'\\'))) as u32
            }
        }

        #[inline(always)]
        fn backslashes(block: &[u8; 64]) -> u64 {
            // SAFETY: AVX2 is there; both loads lie within the block.
            unsafe {
                let from = block.as_ptr();
                equal(_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()), b'\\')
            }
        }

        #[inline(always)]
        fn attention(window: &Window) -> u64 {
            // SAFETY: AVX2 is there; the loads lie within the window.
            unsafe {
                let (low, high) = load(window, 0);
                let (low_one, high_one) = load(window, 1);
                let (low_two, high_two) = load(window, 2);
                let low = _mm256_or_si256(candidates(low_two, low), escapes(low, low_one, low_two));
                let high = _mm256_or_si256(candidates(high_two, high), escapes(high, high_one, high_two));
                if _mm256_testz_si256(_mm256_or_si256(low, high), _mm256_set1_epi8(-1)) != 0 { 0 } else { join(low, high) }
            }
        }

        #[inline(always)]
        fn prefix_xor(bits: u64) -> u64 {
            // SAFETY: the carry-less multiplication is there (see `Avx2`).
            unsafe { _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(bits as i64), _mm_set1_epi8(-1))) as u64 }
        }
    }

    /// The 64 bytes of a window that lie `before` bytes before its block's.
    #[inline(always)]
    unsafe fn load(window: &Window, before: usize) -> (__m256i, __m256i) {
        // SAFETY: the caller has AVX2 and asks for no more than the lead.
        unsafe {
            let from = window.as_ptr().add(LEAD - before);
            (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()))
        }
    }

    #[inline(always)]
    unsafe fn join(low: __m256i, high: __m256i) -> u64 {
        // SAFETY: the caller has AVX2.
        unsafe { u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32 }
    }

    #[inline(always)]
    unsafe fn is(bytes: __m256i, byte: u8) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    unsafe fn equal(low: __m256i, high: __m256i, byte: u8) -> u64 {
        // SAFETY: the caller has AVX2.
        unsafe { join(is(low, byte), is(high, byte)) }
    }

    /// `before`: the bytes two before.
    #[inline(always)]
    unsafe fn candidates(before: __m256i, bytes: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2; the tables are of 16 bytes.
        unsafe {
            let table = |t: &[u8; 16]| _mm256_broadcastsi128_si256(_mm_loadu_si128(t.as_ptr().cast()));
            let letter = _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table(&LETTERS), bytes), bytes);
            _mm256_and_si256(letter, _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table(&BEFORE), bytes), before))
        }
    }

    /// See `Blocks::attention`. `one`, `two`: the bytes one and two before.
    #[inline(always)]
    unsafe fn escapes(bytes: __m256i, one: __m256i, two: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let (quote, backslash) = (is(bytes, b'"'), is(one, b'\\'));
            let behind = _mm256_or_si256(is(bytes, b'u'), _mm256_and_si256(quote, is(two, b'\\')));
            _mm256_or_si256(_mm256_andnot_si256(backslash, quote), _mm256_and_si256(backslash, behind))
        }
    }
}
