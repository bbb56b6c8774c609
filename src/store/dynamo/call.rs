//! One call, made until it is answered.
//!
//! In: a request. Out: its answer, counted with what it cost. Invariant: throttling, server faults and lost answers stall the caller,
//! with pauses that double and are spread by chance; only a refusal, or no answer for as long as the caller's patience lasts, is an error.

use std::{
    future::Future,
    hash::BuildHasher,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::{
    Client,
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::{ConsumedCapacity, ReturnConsumedCapacity},
};
use tokio::runtime::Runtime;

use crate::{
    metrics::Metrics,
    store::{Result, StoreError},
};

pub const TOTAL: ReturnConsumedCapacity = ReturnConsumedCapacity::Total;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const PAUSE_DOUBLINGS: u32 = 8;

/// Why a call gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// To be made again; whether it was throttled.
    Later(String, bool),
    Refused(String),
}

impl Failure {
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let text = DisplayErrorContext(error).to_string();
        let server_fault = error.raw_response().is_none_or(|r| r.status().is_server_error());
        match error.code().unwrap_or_default() {
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "TransactionConflictException" => Self::Later(text, true),
            "InternalServerError" | "ServiceUnavailable" => Self::Later(text, false),
            // Credentials that have just run out are renewed by the next attempt.
            "ExpiredTokenException" | "RequestExpired" => Self::Later(text, false),
            _ if server_fault => Self::Later(text, false),
            _ => Self::Refused(text),
        }
    }
}

pub fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0)
}

/// A client with the runtime that its calls run on.
pub struct Caller {
    client: Client,
    table: String,
    metrics: counting::Calls,
    /// Taken when the caller goes.
    runtime: Option<Runtime>,
    seed: u64,
    tokens: AtomicU64,
    patience: Duration,
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be dropped on a runtime's thread, which mustn't wait.
            runtime.shutdown_background();
        }
    }
}

impl Caller {
    /// `patience`: how long one call may go unanswered.
    pub fn new(client: Client, table: &str, patience: Duration, metrics: &Metrics) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("state").enable_all().build();
        let runtime = runtime.map_err(|e| StoreError::Io { path: table.into(), detail: format!("no thread for its calls: {e}") })?;
        let seed = std::collections::hash_map::RandomState::new().hash_one(table);
        let metrics = counting::Calls::new(metrics);
        Ok(Self { client, table: table.to_owned(), metrics, runtime: Some(runtime), seed, tokens: AtomicU64::new(0), patience })
    }

    pub fn table(&self) -> &str {
        &self.table
    }

    fn chance(&self) -> u64 {
        std::collections::hash_map::RandomState::new().hash_one(self.tokens.fetch_add(1, Ordering::Relaxed) ^ self.seed)
    }

    /// 32 hex digits that no other call has.
    pub fn token(&self) -> String {
        format!("{:016x}{:016x}", self.chance(), self.chance())
    }

    /// `ask` is called again for each attempt; its future gives the answer and the capacity units used.
    pub fn call<T, A, F>(&self, name: &'static str, mut ask: A) -> Result<T>
    where
        T: Send + 'static,
        A: FnMut(&Client, &str) -> F,
        F: Future<Output = Result<(T, f64), Failure>> + Send + 'static,
    {
        let started = Instant::now();
        for attempt in 0.. {
            let (detail, throttled) = match self.once(ask(&self.client, &self.table)) {
                Ok((answer, units)) => {
                    self.metrics.ok(name, units);
                    return Ok(answer);
                }
                Err(Failure::Refused(detail)) => {
                    self.metrics.failed(name, false);
                    return Err(StoreError::Refused { call: name, table: self.table.clone(), detail });
                }
                Err(Failure::Later(detail, throttled)) => (detail, throttled),
            };
            self.metrics.failed(name, throttled);
            if started.elapsed() >= self.patience {
                return Err(StoreError::Unavailable { call: name, table: self.table.clone(), waited_s: started.elapsed().as_secs(), detail });
            }
            if attempt == 3 {
                tracing::warn!(table = self.table, call = name, throttled, "DynamoDB holds the state up: {detail}");
            }
            let pause = FIRST_PAUSE * (1 << attempt.min(PAUSE_DOUBLINGS));
            std::thread::sleep(pause.mul_f64(0.5 + (self.chance() >> 33) as f64 / (1u64 << 32) as f64));
        }
        unreachable!("the loop ends by returning")
    }

    fn once<T: Send + 'static>(&self, future: impl Future<Output = Result<(T, f64), Failure>> + Send + 'static) -> Result<(T, f64), Failure> {
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        let (tell, told) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Nobody listens any more: the process ends.
            let _ = tell.send(future.await);
        });
        told.recv().unwrap_or_else(|_| Err(Failure::Later("the call was broken off".into(), false)))
    }
}

mod counting {
    use crate::metrics::{CallMetrics, Metrics};

    const NAMES: [&str; 8] = ["GetItem", "Query", "Scan", "PutItem", "TransactWriteItems", "CreateTable", "DescribeTable", "UpdateTimeToLive"];

    /// Counts calls, and what DynamoDB says it has billed for them.
    pub struct Calls(Vec<(&'static str, CallMetrics, prometheus::Counter)>);

    impl Calls {
        pub fn new(metrics: &Metrics) -> Self {
            Self(NAMES.map(|name| (name, metrics.aws_call("dynamodb", name), metrics.dynamodb_state_units(name))).into())
        }

        fn of(&self, name: &str) -> Option<&(&'static str, CallMetrics, prometheus::Counter)> {
            self.0.iter().find(|call| call.0 == name)
        }

        pub fn ok(&self, name: &str, units: f64) {
            if let Some((_, call, counter)) = self.of(name) {
                call.ok.inc();
                counter.inc_by(units.max(0.0));
            }
        }

        pub fn failed(&self, name: &str, throttled: bool) {
            if let Some((_, call, _)) = self.of(name) {
                if throttled { call.throttled.inc() } else { call.failed.inc() }
            }
        }
    }
}
