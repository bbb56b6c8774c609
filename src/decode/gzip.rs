//! Gzip, whole records at a time.
//!
//! In: one or more gzip members. Out: their plain bytes, in a reused buffer. Invariant: the buffer never grows beyond
//! `MAX_INFLATED_BYTES`, whatever the data claim.

use std::io::Read;

use libdeflater::{DecompressionError, Decompressor};

use super::Reason;

/// What one record may inflate to.
pub const MAX_INFLATED_BYTES: usize = 64 << 20;
/// Plain bytes for each compressed one, above `RATIO_FREE_BYTES`. CloudWatch Logs reaches about 10, very dull logs 100.
pub const MAX_RATIO: usize = 250;
const RATIO_FREE_BYTES: usize = 1 << 20;

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Header and trailer of an empty member.
const LEAST_BYTES: usize = 18;

pub fn is_gzip(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

pub struct Inflater {
    decompressor: Decompressor,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { decompressor: Decompressor::new() }
    }
}

impl Inflater {
    /// Inflates all members into `out`, which is grown but never shrunk; answers the plain length.
    ///
    /// # Errors
    /// `Gzip` for damaged or cut data, `GzipTooLarge` above the bounds.
    pub fn inflate(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize, Reason> {
        let cap = MAX_INFLATED_BYTES.min((data.len() * MAX_RATIO).max(RATIO_FREE_BYTES));
        // The trailer's size is the sender's claim: believed within the cap, and never relied on.
        let claimed = data.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let single = data.len() >= LEAST_BYTES && memchr::memmem::find(&data[MAGIC.len()..], &MAGIC).is_none();
        if single && claimed <= cap {
            if out.len() < claimed {
                out.resize(claimed, 0);
            }
            match self.decompressor.gzip_decompress(data, &mut out[..claimed]) {
                Ok(length) => return Ok(length),
                Err(DecompressionError::BadData) => return Err(Reason::Gzip),
                Err(DecompressionError::InsufficientSpace) => {}
            }
        }
        members(data, out, cap)
    }
}

/// Any number of members, trailing zeros tolerated.
fn members(data: &[u8], out: &mut Vec<u8>, cap: usize) -> Result<usize, Reason> {
    let mut length = 0;
    let mut rest = data;
    while is_gzip(rest) {
        let mut reader = flate2::bufread::GzDecoder::new(rest);
        loop {
            if out.len() - length < 4096 {
                out.resize((out.len() * 2).clamp(64 << 10, cap + 1), 0);
            }
            match reader.read(&mut out[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(_) => return Err(Reason::Gzip),
            }
            if length > cap {
                return Err(Reason::GzipTooLarge);
            }
        }
        rest = reader.into_inner();
    }
    if rest.iter().all(|b| *b == 0) { Ok(length) } else { Err(Reason::Gzip) }
}
