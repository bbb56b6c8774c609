//! The table itself: made where it is missing, refused where it isn't ours.
//!
//! In: a caller. Out: a table that takes rows of this layout. Invariant: a table that isn't ours, or is newer, is not changed.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus, TimeToLiveSpecification,
    },
};

use super::{Failure, Place, Table, bytes, call::Caller};
use crate::store::{Result, StoreError};

/// The layout of the rows.
const SCHEMA: u32 = 1;
const SCHEMA_ROW: &[u8] = b"schema";
const KIND: &[u8; 11] = b"trailwarden";
const CHECK: Duration = Duration::from_millis(250);
const CHECKS: u32 = 480;
const KEYS: [(&str, KeyType); 2] = [("p", KeyType::Hash), ("s", KeyType::Range)];

pub fn prepare(caller: &Caller) -> Result<()> {
    let mut made = false;
    for _ in 0..CHECKS {
        match describe(caller)? {
            None => {
                create(caller)?;
                made = true;
            }
            Some(table) if !ours(&table) => return Err(foreign(caller)),
            Some(table) if table.table_status() == Some(&TableStatus::Active) || table.table_status() == Some(&TableStatus::Updating) => {
                if made {
                    expire(caller);
                }
                return schema(caller);
            }
            Some(_) => std::thread::sleep(CHECK),
        }
    }
    let detail = "it does not become active".to_owned();
    Err(StoreError::Refused { call: "CreateTable", table: caller.table().into(), detail })
}

/// Whether the table is there and ours; nothing is made or written.
pub fn check(caller: &Caller) -> Result<()> {
    match describe(caller)? {
        None => {
            let detail = "there is no such table; it is `state.table` of the fleet's config, by default the lease table's name with `-State`";
            Err(StoreError::Refused { call: "DescribeTable", table: caller.table().into(), detail: detail.into() })
        }
        Some(table) if !ours(&table) => Err(foreign(caller)),
        Some(_) => marked(caller)?.ok_or_else(|| foreign(caller)),
    }
}

fn foreign(caller: &Caller) -> StoreError {
    StoreError::Foreign { path: format!("DynamoDB table {}", caller.table()) }
}

fn describe(caller: &Caller) -> Result<Option<TableDescription>> {
    caller.call("DescribeTable", |client, table| {
        let ask = client.describe_table().table_name(table);
        async move {
            match ask.send().await {
                Ok(answer) => Ok((answer.table, 0.0)),
                Err(error) if error.code() == Some("ResourceNotFoundException") => Ok((None, 0.0)),
                Err(error) => Err(Failure::of(&error)),
            }
        }
    })
}

fn ours(table: &TableDescription) -> bool {
    let keys = table.key_schema();
    let types = table.attribute_definitions();
    keys.len() == KEYS.len()
        && KEYS.iter().all(|(name, kind)| {
            keys.iter().any(|key| key.attribute_name() == *name && key.key_type() == kind)
                && types.iter().any(|of| of.attribute_name() == *name && *of.attribute_type() == ScalarAttributeType::B)
        })
}

fn create(caller: &Caller) -> Result<()> {
    caller.call("CreateTable", |client, table| {
        let mut ask = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in KEYS {
            let of = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::B).build();
            let key = KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
            ask = ask.attribute_definitions(of.expect("both are set")).key_schema(key.expect("both are set"));
        }
        async move {
            match ask.send().await {
                Ok(_) => Ok(((), 0.0)),
                // Another worker was first.
                Err(error) if error.code() == Some("ResourceInUseException") => Ok(((), 0.0)),
                Err(error) => Err(Failure::of(&error)),
            }
        }
    })
}

/// Only garbage would stay without it.
fn expire(caller: &Caller) {
    let asked = caller.call("UpdateTimeToLive", |client, table| {
        let spec = TimeToLiveSpecification::builder().attribute_name("e").enabled(true).build().expect("both are set");
        let ask = client.update_time_to_live().table_name(table).time_to_live_specification(spec);
        async move { ask.send().await.map(|_| ((), 0.0)).map_err(|e| Failure::of(&e)) }
    });
    if let Err(error) = asked {
        tracing::warn!("old rows of the state table will not expire by themselves: {error}");
    }
}

/// Whether the row is there that marks the table as ours.
fn marked(caller: &Caller) -> Result<Option<()>> {
    let Some(item) = caller.item(Place::of(Table::Meta, SCHEMA_ROW).key())? else { return Ok(None) };
    let found = item.get("v").and_then(|v| v.as_b().ok()).and_then(|v| v.as_ref().strip_prefix(KIND)?.try_into().ok());
    match found.map(u32::from_be_bytes) {
        Some(found) if found > SCHEMA => Err(StoreError::Newer { path: format!("DynamoDB table {}", caller.table()), found, known: SCHEMA }),
        Some(_) => Ok(Some(())),
        None => Err(foreign(caller)),
    }
}

/// Finds the row that marks the table as ours, or writes it into an empty table.
fn schema(caller: &Caller) -> Result<()> {
    let place = Place::of(Table::Meta, SCHEMA_ROW);
    let newest = [&KIND[..], &SCHEMA.to_be_bytes()].concat();
    for _ in 0..3 {
        if let Some(marked) = marked(caller)? {
            return Ok(marked);
        }
        if !is_empty(caller)? {
            return Err(foreign(caller));
        }
        let mut item = place.key();
        item.insert("v".into(), bytes(&newest));
        caller.call("PutItem", move |client, table| {
            let ask = client.put_item().table_name(table).set_item(Some(item.clone())).condition_expression("attribute_not_exists(p)");
            async move {
                match ask.send().await {
                    Ok(_) => Ok(((), 0.0)),
                    Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(((), 0.0)),
                    Err(error) => Err(Failure::of(&error)),
                }
            }
        })?;
    }
    Err(foreign(caller))
}

fn is_empty(caller: &Caller) -> Result<bool> {
    // Another worker may have written the mark since we looked: only other rows are foreign.
    let mark = Place::of(Table::Meta, SCHEMA_ROW);
    let (items, _) = caller.scan_page(None, Some(1))?;
    Ok(items.iter().all(|item| Place::of_item(item).as_ref() == Some(&mark)))
}
