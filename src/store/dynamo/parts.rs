//! Values that are larger than an item may be: kept in pieces.
//!
//! In: a value. Out: the row's item, after its pieces have been written; the value again. Invariant: a row names pieces that
//! were there before it; pieces without a row are garbage and expire.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{DynamoStore, Failure, Item, Place, Result, Table, bytes, call, now_ms, place};
use crate::store::row_error;

/// An item may be 400 KB, keys and names included.
const PIECE_BYTES: usize = 300 << 10;
/// A piece outlives its row, or the attempt to write that, by this much at least.
const KEEP_MS: i64 = 90 * 24 * 3_600_000;

impl DynamoStore {
    /// The item of a row; a large value's pieces are written first.
    pub(super) fn large(&self, place: &Place, table: Table, value: &[u8]) -> Result<Item> {
        if value.len() <= PIECE_BYTES {
            return Ok(self.item(place, table, value));
        }
        let token = self.caller.token();
        for (index, piece) in value.chunks(PIECE_BYTES).enumerate() {
            let mut item = place.piece(&token, index).key();
            item.insert("v".into(), bytes(piece));
            item.insert("e".into(), AttributeValue::N(((now_ms() + KEEP_MS) / 1000).to_string()));
            self.caller.call("PutItem", move |client, table| {
                let ask = client.put_item().table_name(table).set_item(Some(item.clone())).return_consumed_capacity(call::TOTAL);
                async move {
                    let answer = ask.send().await.map_err(|e| Failure::of(&e))?;
                    Ok(((), call::units(answer.consumed_capacity())))
                }
            })?;
        }
        let mut item = self.item(place, table, token.as_bytes());
        item.insert("n".into(), AttributeValue::N(value.len().div_ceil(PIECE_BYTES).to_string()));
        Ok(item)
    }

    /// A row's value, put together where it lies in pieces.
    pub(super) fn value(&self, item: &Item) -> Result<Vec<u8>> {
        let value = blob(item).ok_or_else(|| row_error(Table::Meta, "an item has no value"))?;
        let (Some(pieces), Some(place)) = (place::number(item, "n"), Place::of_item(item)) else { return Ok(value) };
        let token = String::from_utf8(value).map_err(|e| row_error(Table::Kv, e))?;
        let mut whole = Vec::new();
        for index in 0..pieces {
            let key = place.piece(&token, index).key();
            let piece = self.caller.item(key)?;
            let Some(piece) = piece.as_ref().and_then(blob) else { return Err(row_error(Table::Kv, "a piece of a large value is gone")) };
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

fn blob(item: &Item) -> Option<Vec<u8>> {
    item.get("v")?.as_b().ok().map(|blob| blob.as_ref().to_vec())
}
