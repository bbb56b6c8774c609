//! Reads that several parts of the store make: one item, a page of a scan, all pages.
//!
//! In: keys. Out: items, read consistently. Invariant: what is visited comes in the table's order, page after page, none left out.

use std::ops::ControlFlow;

use super::{
    Item,
    call::{self, Caller, Failure},
};
use crate::store::Result;

/// Gets each item; `Break` ends the reading.
pub type Found<'a> = &'a mut dyn FnMut(Item) -> Result<ControlFlow<()>>;
/// Items, and where the next page begins.
pub type Page = (Vec<Item>, Option<Item>);

/// `page` gets where to begin.
pub fn pages(mut page: impl FnMut(Option<Item>) -> Result<Page>, visit: Found) -> Result<()> {
    let mut start = None;
    loop {
        let (items, next) = page(start.take())?;
        for item in items {
            if visit(item)?.is_break() {
                return Ok(());
            }
        }
        start = next.filter(|key| !key.is_empty());
        if start.is_none() {
            return Ok(());
        }
    }
}

impl Caller {
    pub fn item(&self, key: Item) -> Result<Option<Item>> {
        self.call("GetItem", move |client, table| {
            let ask = client.get_item().table_name(table).set_key(Some(key.clone())).consistent_read(true).return_consumed_capacity(call::TOTAL);
            async move {
                let answer = ask.send().await.map_err(|e| Failure::of(&e))?;
                let units = call::units(answer.consumed_capacity());
                Ok((answer.item, units))
            }
        })
    }

    pub fn scan_page(&self, start: Option<Item>, limit: Option<i32>) -> Result<Page> {
        self.call("Scan", move |client, table| {
            let ask = client.scan().table_name(table).consistent_read(true).set_exclusive_start_key(start.clone()).set_limit(limit);
            let ask = ask.return_consumed_capacity(call::TOTAL);
            async move {
                let page = ask.send().await.map_err(|e| Failure::of(&e))?;
                let units = call::units(page.consumed_capacity());
                Ok(((page.items.unwrap_or_default(), page.last_evaluated_key), units))
            }
        })
    }
}
