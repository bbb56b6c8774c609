//! Rows in one DynamoDB table, for a fleet whose workers share what they have found.
//!
//! In: batches, guarded or not. Out: rows in key order, read consistently. Invariant: a batch of up to 100 rows is one
//! transaction; a call that is throttled or gets no answer is made again, and nothing is ever skipped.
//!
//! All rows of a group (its version, its evidence, its fired cells) are one partition, so that one query gives a window. The
//! table is made where it is missing, on demand, and marked as ours. The attribute `e` lets DynamoDB collect garbage; no row
//! is read differently for it. A value that is larger than an item may be lies in pieces of its own (`parts`).
//!
//! The methods block. They may be called from any thread, but hold up a runtime's: `deliver` steps aside for them, the keeper
//! has a thread of its own. The calls run on a small runtime that belongs to the store.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use aws_sdk_dynamodb::{
    Client,
    operation::transact_write_items::TransactWriteItemsError,
    primitives::Blob,
    types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem},
};

use super::{Change, GroupRow, Guard, Result, Store, Table, Visit, keeper::rows};
use crate::metrics::Metrics;
use call::{Caller, Failure};
use place::Place;
use read::Found;

mod call;
mod parts;
mod place;
mod read;
mod table;

/// Rows of one transaction.
const BATCH_CHANGES: usize = 100;
/// Of the first page of a scan, which may well be stopped there.
const FIRST_PAGE: i32 = 50;
/// Issued ids outlive their last use by this much before they are garbage.
const SPARE_MS: i64 = 48 * 3_600_000;
/// A table that gives no answer for so long stops the daemon, which starts again from its checkpoint.
const PATIENCE: Duration = Duration::from_secs(900);
/// A person who looks at the table waits so long for each answer.
const LOOK: Duration = Duration::from_secs(15);

type Item = HashMap<String, AttributeValue>;

/// See the module.
pub struct DynamoStore {
    caller: Caller,
    keep_ms: AtomicI64,
}

impl DynamoStore {
    /// Opens the table or makes it. `keep_ms`: how long a group's rows may still be of use after they were written
    /// (`SharedKeeper::keep_ms`). Blocks.
    ///
    /// # Errors
    /// A table of another program, a newer layout, or a refusal.
    pub fn open(client: Client, table: &str, keep_ms: i64, metrics: &Metrics) -> Result<Self> {
        let caller = Caller::new(client, table, PATIENCE, metrics)?;
        table::prepare(&caller)?;
        Ok(Self { caller, keep_ms: AtomicI64::new(keep_ms) })
    }

    /// Opens a table to look at it, as a fleet may be using it. Nothing is made, and writing is not for this store. Blocks.
    ///
    /// # Errors
    /// No such table, another program's, a newer layout, a refusal, or no answer within `LOOK`.
    pub fn look(client: Client, table: &str) -> Result<Self> {
        let caller = Caller::new(client, table, LOOK, &Metrics::new())?;
        table::check(&caller)?;
        Ok(Self { caller, keep_ms: AtomicI64::new(0) })
    }

    fn item(&self, place: &Place, table: Table, value: &[u8]) -> Item {
        let mut item = place.key();
        item.insert("v".into(), bytes(value));
        let garbage_ms = match table {
            Table::Evidence | Table::Groups => Some(now_ms().saturating_add(self.keep_ms.load(Ordering::Relaxed))),
            Table::Meta if place.is_group() => Some(now_ms().saturating_add(self.keep_ms.load(Ordering::Relaxed))),
            Table::Fired => rows::read_fired(value).map(|fired| fired.expires_ms.max(now_ms()).saturating_add(SPARE_MS)),
            _ => None,
        };
        if let Some(garbage_ms) = garbage_ms {
            item.insert("e".into(), AttributeValue::N((garbage_ms / 1000).to_string()));
        }
        item
    }

    /// Queries a partition, page by page.
    fn query(&self, partition: &[u8], from: &[u8], limit: Option<i32>, visit: Found) -> Result<()> {
        let mut limit = limit;
        let page = |start: Option<Item>| {
            let (partition, from, limit) = (bytes(partition), bytes(from), limit.take());
            self.caller.call("Query", move |client, table| {
                let ask = client.query().table_name(table).consistent_read(true).key_condition_expression("p = :p AND s >= :s");
                let ask = ask.expression_attribute_values(":p", partition.clone()).expression_attribute_values(":s", from.clone());
                let ask = ask.set_exclusive_start_key(start.clone()).set_limit(limit).return_consumed_capacity(call::TOTAL);
                async move {
                    let page = ask.send().await.map_err(|e| Failure::of(&e))?;
                    let units = call::units(page.consumed_capacity());
                    Ok(((page.items.unwrap_or_default(), page.last_evaluated_key), units))
                }
            })
        };
        read::pages(page, visit)
    }

    /// Every row of a table whose partitions the prefix doesn't name: for lists that people ask for. Reads the whole table.
    fn sweep(&self, table: Table, prefix: &[u8], from: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut found = BTreeMap::new();
        let page = |start: Option<Item>| self.caller.scan_page(start, None);
        read::pages(page, &mut |item| {
            if let Some((of, key)) = Place::of_item(&item).and_then(|place| place.row())
                && of == table
                && key.starts_with(prefix)
                && key[..] >= *from
            {
                let value = self.value(&item)?;
                found.insert(key, value);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn transact(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        let mut expected: HashMap<Place, Option<&[u8]>> =
            guards.iter().map(|guard| (Place::of(guard.table, &guard.key), guard.value.as_deref())).collect();
        // Later changes of a row win; DynamoDB takes each row once.
        let last: BTreeMap<Place, &Change> = changes.iter().map(|change| (Place::of(change.table(), key(change)), change)).collect();
        let mut writes = Vec::with_capacity(last.len());
        for (place, change) in last {
            let condition = Condition::of(expected.remove(&place));
            let write = match change {
                Change::Put { table, value, .. } => {
                    TransactWriteItem::builder().put(condition.put(self.caller.table(), self.large(&place, *table, value)?))
                }
                Change::Delete { .. } => TransactWriteItem::builder().delete(condition.delete(self.caller.table(), place.key())),
            };
            writes.push(write.build());
        }
        for (place, value) in expected {
            let check = Condition::of(Some(value)).check(self.caller.table(), place.key());
            writes.push(TransactWriteItem::builder().condition_check(check).build());
        }
        if writes.is_empty() {
            return Ok(true);
        }
        let token = self.caller.token();
        self.caller.call("TransactWriteItems", move |client, _| {
            let ask = client.transact_write_items().set_transact_items(Some(writes.clone()));
            let ask = ask.client_request_token(token.clone()).return_consumed_capacity(call::TOTAL);
            async move {
                match ask.send().await {
                    Ok(answer) => {
                        let units = answer.consumed_capacity().iter().filter_map(|c| c.capacity_units()).sum();
                        Ok((true, units))
                    }
                    Err(error) => match refused(error.as_service_error()) {
                        Some(true) => Ok((false, 0.0)),
                        Some(false) => Err(Failure::Later(aws_sdk_dynamodb::error::DisplayErrorContext(&error).to_string(), true)),
                        None => Err(Failure::of(&error)),
                    },
                }
            }
        })
    }
}

/// `Some(true)`: a guard did not hold. `Some(false)`: to be tried again as it is. None: another error.
fn refused(error: Option<&TransactWriteItemsError>) -> Option<bool> {
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error else {
        return matches!(error, Some(TransactWriteItemsError::TransactionInProgressException(_))).then_some(false);
    };
    let codes: Vec<&str> = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code()).filter(|code| *code != "None").collect();
    if codes.contains(&"ConditionalCheckFailed") {
        return Some(true);
    }
    let passing = |code: &&str| matches!(*code, "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded");
    (!codes.is_empty() && codes.iter().all(passing)).then_some(false)
}

/// What a row must be.
struct Condition {
    text: Option<&'static str>,
    value: Option<AttributeValue>,
}

impl Condition {
    fn of(expected: Option<Option<&[u8]>>) -> Self {
        match expected {
            None => Self { text: None, value: None },
            Some(None) => Self { text: Some("attribute_not_exists(p)"), value: None },
            Some(Some(value)) => Self { text: Some("v = :v"), value: Some(bytes(value)) },
        }
    }

    fn values(self) -> Option<Item> {
        self.value.map(|value| HashMap::from([(":v".to_owned(), value)]))
    }

    fn put(self, table: &str, item: Item) -> Put {
        let put = Put::builder().table_name(table).set_item(Some(item)).set_condition_expression(self.text.map(Into::into));
        put.set_expression_attribute_values(self.values()).build().expect("table and item are set")
    }

    fn delete(self, table: &str, key: Item) -> Delete {
        let delete = Delete::builder().table_name(table).set_key(Some(key)).set_condition_expression(self.text.map(Into::into));
        delete.set_expression_attribute_values(self.values()).build().expect("table and key are set")
    }

    fn check(self, table: &str, key: Item) -> ConditionCheck {
        let check = ConditionCheck::builder().table_name(table).set_key(Some(key)).set_condition_expression(self.text.map(Into::into));
        check.set_expression_attribute_values(self.values()).build().expect("table, key and condition are set")
    }
}

impl Store for DynamoStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let item = self.caller.item(Place::of(table, key).key())?;
        item.map(|item| self.value(&item)).transpose()
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let Some(partition) = place::partition(table, prefix) else {
            for (key, value) in self.sweep(table, prefix, from)? {
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            return Ok(());
        };
        let start = Place::of(table, prefix.max(from));
        if start.partition() != partition {
            // `from` lies behind everything that begins with the prefix.
            return Ok(());
        }
        self.query(&partition, start.sort(), Some(FIRST_PAGE), &mut |item| {
            let Some((of, key)) = Place::of_item(&item).and_then(|place| place.row()) else { return Ok(ControlFlow::Continue(())) };
            if of != table || !key.starts_with(prefix) {
                return Ok(ControlFlow::Break(()));
            }
            Ok(visit(&key, &self.value(&item)?))
        })
    }

    /// Over 100 changes are several transactions: what is put before what is deleted.
    fn commit(&self, mut changes: Vec<Change>) -> Result<()> {
        if changes.len() > BATCH_CHANGES {
            changes.sort_by_key(|change| matches!(change, Change::Delete { .. }));
        }
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH_CHANGES));
            self.transact(&[], std::mem::replace(&mut changes, rest))?;
        }
        Ok(())
    }

    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        self.transact(guards, changes)
    }

    fn keep_for(&self, keep_ms: i64) {
        self.keep_ms.store(keep_ms, Ordering::Relaxed);
    }

    fn batch_changes(&self) -> usize {
        BATCH_CHANGES
    }

    fn group(&self, group: &[u8; 16]) -> Result<Vec<GroupRow>> {
        let mut rows = Vec::new();
        self.query(&place::group_partition(group), &[0], None, &mut |item| {
            if let Some((table, key)) = Place::of_item(&item).and_then(|place| place.row()) {
                rows.push((table, key, self.value(&item)?));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// DynamoDB counts it every six hours; not asked for.
    fn bytes(&self) -> u64 {
        0
    }
}

fn key(change: &Change) -> &[u8] {
    match change {
        Change::Put { key, .. } | Change::Delete { key, .. } => key,
    }
}

fn bytes(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

/// Only for `e`: when a row is garbage.
fn now_ms() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
