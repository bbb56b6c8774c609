//! The calls on the lease table, each a conditional write.
//!
//! In: rows as last seen. Out: rows as they are now, or `None` where someone else was first. Invariant: no write changes a
//! lease whose reader and counter are not those that the caller saw.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{
        AttributeDefinition, AttributeValue, BillingMode, ConsumedCapacity, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
        ProjectionType, ReturnConsumedCapacity, ReturnValue, ScalarAttributeType, TableStatus,
    },
};

use super::row::{Item, Row, checkpoint_text, n, s};
use crate::{
    metrics::{CallMetrics, Metrics},
    position::Position,
};

const OWNER_INDEX: &str = "LeaseOwnerToLeaseKeyIndex";
const ACTIVATION_CHECK: Duration = Duration::from_millis(500);
const ACTIVATION_CHECKS: u32 = 240;
/// Pages of a scan followed at most, 1 MB each.
const MAX_PAGES: usize = 1000;

/// Why a call gave nothing. A refused condition is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("DynamoDB throttles {0}")]
    Throttled(&'static str),
    #[error("{call} on table {table} is refused: {message}; allow the task role dynamodb:{call}")]
    Denied { call: &'static str, table: String, message: String },
    #[error("{call} on table {table} failed: {message}")]
    Failed { call: &'static str, table: String, message: String },
}

impl TableError {
    pub fn of<E>(call: &'static str, table: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let table = table.to_owned();
        match error.code().unwrap_or_default() {
            "ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded" => Self::Throttled(call),
            "AccessDeniedException" | "UnrecognizedClientException" | "ExpiredTokenException" => {
                Self::Denied { call, table, message: error.message().unwrap_or_default().to_owned() }
            }
            _ => Self::Failed { call, table, message: DisplayErrorContext(error).to_string() },
        }
    }
}

/// Counts the calls and what DynamoDB says it has billed for them.
pub struct Cost {
    update: CallMetrics,
    put: CallMetrics,
    get: CallMetrics,
    delete: CallMetrics,
    scan: CallMetrics,
    other: CallMetrics,
    units: prometheus::Counter,
}

impl std::fmt::Debug for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cost({} units)", self.units.get())
    }
}

impl Cost {
    pub fn new(metrics: &Metrics) -> Self {
        let call = |operation| metrics.aws_call("dynamodb", operation);
        Self {
            update: call("UpdateItem"),
            put: call("PutItem"),
            get: call("GetItem"),
            delete: call("DeleteItem"),
            scan: call("Scan"),
            other: call("CreateTable"),
            units: metrics.dynamodb_capacity_units.clone(),
        }
    }

    fn ok(&self, call: &CallMetrics, capacity: Option<&ConsumedCapacity>) {
        call.ok.inc();
        self.units.inc_by(capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0).max(0.0));
    }

    fn failed(&self, call: &'static str, error: &TableError) {
        let call = match call {
            "UpdateItem" => &self.update,
            "PutItem" => &self.put,
            "GetItem" => &self.get,
            "DeleteItem" => &self.delete,
            "Scan" => &self.scan,
            _ => &self.other,
        };
        let counter = if matches!(error, TableError::Throttled(_)) { &call.throttled } else { &call.failed };
        counter.inc();
    }
}

/// One table of the application, keyed by one text attribute.
#[derive(Debug, Clone)]
pub struct Table {
    pub client: Client,
    pub name: String,
    pub cost: Arc<Cost>,
}

/// One conditional update in the making.
pub struct Update {
    key: (&'static str, String),
    set: Vec<(&'static str, AttributeValue)>,
    add: Vec<(&'static str, i64)>,
    remove: Vec<&'static str>,
    condition: String,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    pub fn new(key: (&'static str, &str), condition: &str) -> Self {
        let key = (key.0, key.1.to_owned());
        Self { key, set: Vec::new(), add: Vec::new(), remove: Vec::new(), condition: condition.to_owned(), values: HashMap::new() }
    }

    pub fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    pub fn set(mut self, name: &'static str, value: AttributeValue) -> Self {
        self.set.push((name, value));
        self
    }

    pub fn add(mut self, name: &'static str, by: i64) -> Self {
        self.add.push((name, by));
        self
    }

    pub fn remove(mut self, names: &[&'static str]) -> Self {
        self.remove.extend(names);
        self
    }
}

/// What a conditional write met.
#[derive(Debug)]
pub enum Written {
    /// The item as it is now.
    Done(Item),
    /// The condition failed; the item as it stands, where it exists.
    Refused(Option<Item>),
}

impl Table {
    pub async fn update(&self, update: Update) -> Result<Written, TableError> {
        let mut values = update.values;
        let mut parts = Vec::new();
        let mut clause = |verb: &str, items: Vec<String>| {
            if !items.is_empty() {
                parts.push(format!("{verb} {}", items.join(", ")));
            }
        };
        let mut set = Vec::new();
        for (name, value) in update.set {
            values.insert(format!(":set_{name}"), value);
            set.push(format!("{name} = :set_{name}"));
        }
        let mut add = Vec::new();
        for (name, by) in update.add {
            values.insert(format!(":add_{name}"), n(by));
            add.push(format!("{name} :add_{name}"));
        }
        clause("SET", set);
        clause("ADD", add);
        clause("REMOVE", update.remove.iter().map(|name| (*name).to_owned()).collect());
        let ask = self.client.update_item().table_name(&self.name).key(update.key.0, s(update.key.1));
        let ask = ask.update_expression(parts.join(" ")).condition_expression(update.condition);
        let ask = ask.set_expression_attribute_values((!values.is_empty()).then_some(values)).return_values(ReturnValue::AllNew);
        let ask = ask.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let ask = ask.return_values_on_condition_check_failure(aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld);
        match ask.send().await {
            Ok(answer) => {
                self.cost.ok(&self.cost.update, answer.consumed_capacity());
                Ok(Written::Done(answer.attributes.unwrap_or_default()))
            }
            Err(error) => match error.as_service_error() {
                Some(e) if e.is_conditional_check_failed_exception() => {
                    // A refused write is billed like one that was made.
                    self.cost.update.ok.inc();
                    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(e) = e else {
                        return Ok(Written::Refused(None));
                    };
                    Ok(Written::Refused(e.item().cloned()))
                }
                _ => Err(self.fail("UpdateItem", &error)),
            },
        }
    }

    fn fail<E>(&self, call: &'static str, error: &SdkError<E, HttpResponse>) -> TableError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = TableError::of(call, &self.name, error);
        self.cost.failed(call, &error);
        error
    }

    /// `true` where the item was not there and is now.
    pub async fn put_new(&self, key_name: &str, item: Item) -> Result<bool, TableError> {
        let ask = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let ask = ask.condition_expression("attribute_not_exists(#k)").expression_attribute_names("#k", key_name);
        match ask.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.cost.ok(&self.cost.put, answer.consumed_capacity());
                Ok(true)
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => Ok(false),
            Err(error) => Err(self.fail("PutItem", &error)),
        }
    }

    pub async fn get(&self, key: (&str, &str)) -> Result<Option<Item>, TableError> {
        let ask = self.client.get_item().table_name(&self.name).key(key.0, s(key.1)).consistent_read(true);
        let answer = ask.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(|e| self.fail("GetItem", &e))?;
        self.cost.ok(&self.cost.get, answer.consumed_capacity());
        Ok(answer.item)
    }

    /// Deletes where `condition` holds; `true` also where nothing was there.
    pub async fn delete(&self, key: (&str, &str), condition: Option<(&str, &str, AttributeValue)>) -> Result<bool, TableError> {
        let mut ask = self.client.delete_item().table_name(&self.name).key(key.0, s(key.1));
        if let Some((expression, name, value)) = condition {
            ask = ask.condition_expression(expression).expression_attribute_values(name, value);
        }
        match ask.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.cost.ok(&self.cost.delete, answer.consumed_capacity());
                Ok(true)
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => Ok(false),
            Err(error) => Err(self.fail("DeleteItem", &error)),
        }
    }

    pub async fn scan(&self) -> Result<Vec<Item>, TableError> {
        let (mut items, mut from) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let ask = self.client.scan().table_name(&self.name).set_exclusive_start_key(from);
            let page = ask.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.map_err(|e| self.fail("Scan", &e))?;
            self.cost.ok(&self.cost.scan, page.consumed_capacity());
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key.filter(|k| !k.is_empty());
            if from.is_none() {
                break;
            }
        }
        Ok(items)
    }

    /// Makes the table, on demand and with the owner index where asked for, and waits until it is there.
    pub async fn create(&self, key: &str, owner_index: bool) -> Result<(), TableError> {
        let text = |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
        let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("both are set");
        let mut ask = self.client.create_table().table_name(&self.name).billing_mode(BillingMode::PayPerRequest);
        ask = ask.attribute_definitions(text(key).expect("both are set")).key_schema(element(key, KeyType::Hash));
        if owner_index {
            let projection = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
            let index = GlobalSecondaryIndex::builder().index_name(OWNER_INDEX).projection(projection);
            let index = index.key_schema(element("leaseOwner", KeyType::Hash)).key_schema(element(key, KeyType::Range));
            ask = ask.attribute_definitions(text("leaseOwner").expect("both are set"));
            ask = ask.global_secondary_indexes(index.build().expect("name and keys are set"));
        }
        if let Err(error) = ask.send().await
            && error.code() != Some("ResourceInUseException")
        {
            return Err(self.fail("CreateTable", &error));
        }
        for _ in 0..ACTIVATION_CHECKS {
            let answer = self.client.describe_table().table_name(&self.name).send().await.map_err(|e| self.fail("DescribeTable", &e))?;
            if answer.table().and_then(|t| t.table_status()) == Some(&TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(ACTIVATION_CHECK).await;
        }
        let message = "it does not become active".to_owned();
        Err(TableError::Failed { call: "CreateTable", table: self.name.clone(), message })
    }
}

/// The lease table's own verbs.
impl Table {
    pub async fn leases(&self) -> Result<Vec<Row>, TableError> {
        Ok(self.scan().await?.iter().filter_map(Row::from_item).collect())
    }

    pub async fn lease(&self, key: &str) -> Result<Option<Row>, TableError> {
        Ok(self.get(("leaseKey", key)).await?.as_ref().and_then(Row::from_item))
    }

    async fn change(&self, update: Update) -> Result<Result<Row, Option<Row>>, TableError> {
        Ok(match self.update(update).await? {
            Written::Done(item) => Row::from_item(&item).ok_or(None),
            Written::Refused(item) => Err(item.as_ref().and_then(Row::from_item)),
        })
    }

    /// A write of the lease's reader: refused once the reader or the counter is another. A write whose answer was lost shows
    /// as a counter that is one ahead under our own name, which is nobody else's: it is adopted and the write repeated.
    async fn as_reader(&self, row: &Row, worker: &str, change: impl Fn(Update) -> Update) -> Result<Option<Row>, TableError> {
        const OURS: &str = "leaseCounter = :counter AND (checkpointOwner = :me OR (attribute_not_exists(checkpointOwner) AND leaseOwner = :me))";
        let mut counter = row.counter;
        for _ in 0..2 {
            let update = Update::new(("leaseKey", &row.key), OURS).value(":counter", n(counter)).value(":me", s(worker));
            match self.change(change(update.set("leaseCounter", n(counter + 1)))).await? {
                Ok(row) => return Ok(Some(row)),
                Err(Some(now)) if now.reader() == Some(worker) && now.counter == counter + 1 => counter = now.counter,
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    pub async fn renew(&self, row: &Row, worker: &str, throughput_kbps: f64) -> Result<Option<Row>, TableError> {
        self.as_reader(row, worker, |update| update.set("throughputKBps", n(throughput_kbps))).await
    }

    /// Commits `position`; `None`: the lease is no longer ours and nothing was written.
    pub async fn checkpoint(&self, row: &Row, worker: &str, position: &Position, children: &[String]) -> Result<Option<Row>, TableError> {
        const PENDING: &[&str] = &["pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState"];
        let (text, sub_sequence) = checkpoint_text(position);
        let change = |update: Update| {
            let update = update.set("checkpoint", s(text.clone())).set("checkpointSubSequenceNumber", n(sub_sequence));
            let update = update.set("ownerSwitchesSinceCheckpoint", n(0)).remove(PENDING);
            if children.is_empty() { update } else { update.set("childShardIds", AttributeValue::Ss(children.to_vec())) }
        };
        self.as_reader(row, worker, change).await
    }

    /// Gives the lease up: to its next owner during a hand-over, else to whoever comes.
    pub async fn release(&self, row: &Row, worker: &str) -> Result<bool, TableError> {
        let handing_over = row.checkpoint_owner.is_some();
        let given = self.as_reader(row, worker, |update| update.remove(if handing_over { &["checkpointOwner"] } else { &["leaseOwner"] }));
        Ok(given.await?.is_some())
    }

    /// Takes a lease that is free, expired, or meant for `worker`.
    pub async fn take(&self, row: &Row, worker: &str) -> Result<Option<Row>, TableError> {
        let condition = match (&row.owner, &row.checkpoint_owner) {
            (None, None) => "leaseCounter = :counter AND attribute_not_exists(leaseOwner) AND attribute_not_exists(checkpointOwner)",
            (None, Some(_)) => "leaseCounter = :counter AND attribute_not_exists(leaseOwner) AND checkpointOwner = :reader",
            (Some(_), None) => "leaseCounter = :counter AND leaseOwner = :owner AND attribute_not_exists(checkpointOwner)",
            (Some(_), Some(_)) => "leaseCounter = :counter AND leaseOwner = :owner AND checkpointOwner = :reader",
        };
        let mut update = Update::new(("leaseKey", &row.key), condition).value(":counter", n(row.counter));
        for (name, value) in [(":owner", &row.owner), (":reader", &row.checkpoint_owner)] {
            if let Some(value) = value {
                update = update.value(name, s(value));
            }
        }
        update = update.set("leaseOwner", s(worker)).set("leaseCounter", n(row.counter + 1)).remove(&["checkpointOwner"]);
        if row.reader().is_some_and(|reader| reader != worker) {
            update = update.add("ownerSwitchesSinceCheckpoint", 1);
        }
        Ok(self.change(update).await?.ok())
    }

    /// Asks the lease's reader to hand it over to `to`. The counter stays, so that the reader may go on renewing.
    pub async fn hand_over(&self, row: &Row, to: &str) -> Result<bool, TableError> {
        let Some(reader) = row.owner.as_deref().filter(|_| row.checkpoint_owner.is_none()) else { return Ok(false) };
        let update = Update::new(("leaseKey", &row.key), "leaseOwner = :reader AND attribute_not_exists(checkpointOwner)");
        let update = update.value(":reader", s(reader)).set("leaseOwner", s(to)).set("checkpointOwner", s(reader));
        Ok(self.change(update).await?.is_ok())
    }

    /// Deletes a lease that nobody has touched since it was seen.
    pub async fn delete_lease(&self, row: &Row) -> Result<bool, TableError> {
        self.delete(("leaseKey", &row.key), Some(("leaseCounter = :counter", ":counter", n(row.counter)))).await
    }
}
