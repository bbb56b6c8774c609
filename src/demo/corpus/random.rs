//! Deterministic random text: the same seed writes the same bytes on every machine.
//!
//! In: a seed. Out: numbers, and hex, decimal and base64-like text appended to a buffer. Invariant: no allocation but the
//! buffer's own growth.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three multiplications a number, no bad seeds.
#[derive(Debug, Clone)]
pub struct Random(u64);

const HEX: &[u8; 16] = b"0123456789abcdef";
const ALPHANUMERIC: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const UPPER: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `0..bound`, `bound` under 2³².
    pub fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    pub fn hex(&mut self, len: usize, out: &mut Vec<u8>) {
        self.text(len, HEX, 4, out);
    }

    pub fn alphanumeric(&mut self, len: usize, out: &mut Vec<u8>) {
        self.text(len, ALPHANUMERIC, 6, out);
    }

    pub fn base64(&mut self, len: usize, out: &mut Vec<u8>) {
        self.text(len, BASE64, 6, out);
    }

    /// Letters and digits as in AWS's own ids.
    pub fn upper(&mut self, len: usize, out: &mut Vec<u8>) {
        self.text(len, UPPER, 5, out);
    }

    pub fn uuid(&mut self, out: &mut Vec<u8>) {
        for (at, len) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            if at > 0 {
                out.push(b'-');
            }
            self.hex(len, out);
        }
    }

    fn text(&mut self, len: usize, alphabet: &[u8], bits: usize, out: &mut Vec<u8>) {
        let mut left = len;
        while left > 0 {
            let mut word = self.next();
            for _ in 0..left.min(64 / bits) {
                out.push(alphabet[word as usize & ((1 << bits) - 1)]);
                word >>= bits;
                left -= 1;
            }
        }
    }
}
