//! Records that the Kinesis Producer Library packed into one.
//!
//! In: magic, a protobuf `AggregatedRecord`, the MD5 of the protobuf. Out: the user records in order, each with its sub-sequence
//! number. Invariant: data that only looks aggregated (wrong checksum) is not taken for it, as the KCL does.
//! Format: awslabs/kinesis-aggregation, KPL Aggregated Record Format.

use md5::{Digest, Md5};

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const CHECKSUM_BYTES: usize = 16;

pub fn is_aggregate(data: &[u8]) -> bool {
    body(data).is_some_and(|body| Md5::digest(body)[..] == data[data.len() - CHECKSUM_BYTES..])
}

fn body(data: &[u8]) -> Option<&[u8]> {
    data.strip_prefix(&MAGIC)?.len().checked_sub(CHECKSUM_BYTES).map(|length| &data[MAGIC.len()..MAGIC.len() + length])
}

#[derive(Debug, PartialEq, Eq)]
pub struct UserRecord<'a> {
    pub sub_sequence: u64,
    pub data: &'a [u8],
}

/// The protobuf stops making sense here; nothing follows.
#[derive(Debug, PartialEq, Eq)]
pub struct Damaged {
    pub at: usize,
}

/// The user records of an aggregate.
pub fn records(data: &[u8]) -> impl Iterator<Item = Result<UserRecord<'_>, Damaged>> {
    let mut fields = Fields { bytes: body(data).unwrap_or_default(), at: 0 };
    let mut sub_sequence = 0;
    std::iter::from_fn(move || {
        loop {
            return match fields.next()? {
                Ok((3, record)) => {
                    let inner = Fields { bytes: record, at: 0 }.find(|f| !matches!(f, Ok((number, _)) if *number != 3));
                    sub_sequence += 1;
                    match inner {
                        Some(Ok((_, data))) => Some(Ok(UserRecord { sub_sequence: sub_sequence - 1, data })),
                        Some(Err(damaged)) => Some(Err(damaged)),
                        None => Some(Ok(UserRecord { sub_sequence: sub_sequence - 1, data: &[] })),
                    }
                }
                // The key tables say nothing that is needed here.
                Ok(_) => continue,
                Err(damaged) => Some(Err(damaged)),
            };
        }
    })
}

/// Protobuf fields: number and bytes (empty for numbers). Ends after the first error.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        let field = self.field();
        if field.is_none() {
            self.at = self.bytes.len();
        }
        Some(field.ok_or(Damaged { at: start }))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, &'a [u8])> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => {
                self.varint()?;
                &[][..]
            }
            1 => self.take(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)?
            }
            5 => self.take(4)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }
}
