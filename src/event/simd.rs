//! Bit masks of 64 bytes: with AVX2 where the processor has it, byte by byte elsewhere.
//!
//! In: a block. Out: `Masks`. Invariant: both ways give the same masks (`scan/tests.rs` and the fuzz target compare them).
//! The one module with `unsafe`: `cargo bench --bench core` shows what the vector code gains.
#![allow(unsafe_code)]

use super::scan::{Blocks, Level, Scanned, scan_with};

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
    /// The second letter of a pair that a routing key contains: tS, tN, rI, rA, rC, pe.
    pub candidate: u64,
}

/// Byte by byte: the definition.
pub(super) struct Portable;

impl Blocks for Portable {
    #[inline(always)]
    fn masks(block: &[u8; 64], previous: u8) -> Masks {
        let mut masks = Masks { quote: 0, backslash: 0, open: 0, close: 0, unicode: 0, candidate: 0 };
        let mut before = previous;
        for (i, &byte) in block.iter().enumerate() {
            let pair = matches!((before, byte), (b't', b'S' | b'N') | (b'r', b'I' | b'A' | b'C') | (b'p', b'e'));
            masks.quote |= u64::from(byte == b'"') << i;
            masks.backslash |= u64::from(byte == b'\\') << i;
            masks.open |= u64::from(byte == b'{' || byte == b'[') << i;
            masks.close |= u64::from(byte == b'}' || byte == b']') << i;
            masks.unicode |= u64::from(byte == b'u') << i;
            masks.candidate |= u64::from(pair) << i;
            before = byte;
        }
        masks
    }
}

pub(super) fn run(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has the features that `run` is compiled for.
        return unsafe { avx2::run(buffer, start, level) };
    }
    run_with::<Portable>(buffer, start, level)
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

    use super::{Blocks, Level, Masks, Scanned, run_with};

    #[target_feature(enable = "avx2,bmi1,popcnt")]
    pub(super) fn run(buffer: &[u8], start: usize, level: Level) -> Option<Scanned> {
        run_with::<Avx2>(buffer, start, level)
    }

    /// Only reached through `run`, hence with AVX2 at hand.
    struct Avx2;

    impl Blocks for Avx2 {
        #[inline(always)]
        fn masks(block: &[u8; 64], previous: u8) -> Masks {
            // SAFETY: AVX2 is there (see `Avx2`); both loads lie within the 64 bytes.
            unsafe {
                let low = _mm256_loadu_si256(block.as_ptr().cast());
                let high = _mm256_loadu_si256(block.as_ptr().add(32).cast());
                let case = _mm256_set1_epi8(0x20);
                let (low_folded, high_folded) = (_mm256_or_si256(low, case), _mm256_or_si256(high, case));
                // Byte i of `before` is byte i − 1 of the block.
                let before_low = _mm256_alignr_epi8::<15>(low, _mm256_permute2x128_si256::<0x08>(low, low));
                let before_low = _mm256_or_si256(before_low, _mm256_zextsi128_si256(_mm_cvtsi32_si128(i32::from(previous))));
                let before_high = _mm256_alignr_epi8::<15>(high, _mm256_permute2x128_si256::<0x21>(low, high));
                Masks {
                    quote: equal(low, high, b'"'),
                    backslash: equal(low, high, b'\\'),
                    open: equal(low_folded, high_folded, b'{'),
                    close: equal(low_folded, high_folded, b'}'),
                    unicode: equal(low, high, b'u'),
                    candidate: join(pairs(before_low, low), pairs(before_high, high)),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn join(low: __m256i, high: __m256i) -> u64 {
        // SAFETY: the caller has AVX2.
        unsafe { u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32 }
    }

    #[inline(always)]
    unsafe fn equal(low: __m256i, high: __m256i, byte: u8) -> u64 {
        // SAFETY: the caller has AVX2.
        unsafe {
            let byte = _mm256_set1_epi8(byte as i8);
            join(_mm256_cmpeq_epi8(low, byte), _mm256_cmpeq_epi8(high, byte))
        }
    }

    /// 0xff where the byte and the one before it are one of the pairs.
    #[inline(always)]
    unsafe fn pairs(before: __m256i, byte: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let is = |v: __m256i, b: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b as i8));
            let after_t = _mm256_or_si256(is(byte, b'S'), is(byte, b'N'));
            let after_r = _mm256_or_si256(_mm256_or_si256(is(byte, b'I'), is(byte, b'A')), is(byte, b'C'));
            let t = _mm256_and_si256(is(before, b't'), after_t);
            let r = _mm256_and_si256(is(before, b'r'), after_r);
            let p = _mm256_and_si256(is(before, b'p'), is(byte, b'e'));
            _mm256_or_si256(_mm256_or_si256(t, r), p)
        }
    }
}
