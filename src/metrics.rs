//! Every metric family of the daemon, in one struct.
//!
//! In: counts and durations from all modules, by handles resolved once at start or reload. Out: the text of `/metrics`.
//! Invariant: label values come from the code, the config or the rules, never from events.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use prometheus::{Counter, CounterVec, Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

mod families;
mod latency;

use families::Families;
use latency::LatencyFamily;
pub use latency::{Latency, Percentiles};

/// What became of an alert at a sink. Each is a series of `trailwarden_alerts_total`.
pub const ALERT_OUTCOMES: [&str; 6] = ["delivered", "retried", "rejected", "silenced", "grouped", "fallback"];

/// Where a record's time goes. Each is a series of `trailwarden_stage_seconds`.
pub const STAGES: [&str; 6] = ["fetch", "decode", "detect", "correlate", "commit", "deliver"];

const LEASE_STATES: [&str; 3] = ["held", "foreign", "unassigned"];
const LEASE_EVENTS: [&str; 6] = ["taken", "expired", "renewed", "lost", "released", "failed"];
const CALL_OUTCOMES: [&str; 3] = ["ok", "throttled", "failed"];

/// The daemon's metrics. One per process, shared by `Arc`.
pub struct Metrics {
    registry: Registry,
    source_records: IntCounterVec,
    source_bytes: IntCounterVec,
    events_read: IntCounterVec,
    quarantine_reasons: IntCounterVec,
    /// The conservation law: the sum over `events_read` equals the sum of these four.
    pub events: EventOutcomes,
    /// Event times more than five minutes after the arrival, of events that matched.
    pub events_skewed: IntCounter,
    pub events_undated: IntCounter,
    /// Matches later than the frontier less timespan and allowed lateness.
    pub events_late: IntCounter,
    rule_matches: IntCounterVec,
    rule_findings: IntCounterVec,
    rule_cost: CounterVec,
    rule_quota_hits: IntCounterVec,
    pub rules: RuleSetMetrics,
    pub state: StateMetrics,
    shard_lag: GaugeVec,
    shard_checkpoint_age: GaugeVec,
    shards: Mutex<HashMap<String, Arc<AtomicI64>>>,
    queue_items: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    queue_capacity: IntGaugeVec,
    queue_waits: IntCounterVec,
    queues: Mutex<Vec<(&'static str, u64, QueueMetrics)>>,
    memory_used: IntGaugeVec,
    memory_budget: IntGaugeVec,
    alerts: IntCounterVec,
    sink_latency: LatencyFamily,
    sink_up: IntGaugeVec,
    dead_letters: IntGaugeVec,
    pub delivery: DeliveryMetrics,
    stages: LatencyFamily,
    end_to_end: LatencyFamily,
    leases: IntGaugeVec,
    lease_events: IntCounterVec,
    pub fleet: FleetMetrics,
    aws_calls: IntCounterVec,
    /// Read and write units that DynamoDB says it has billed.
    pub dynamodb_capacity_units: Counter,
    state_units: CounterVec,
    source_gaps: IntCounterVec,
    admin_requests: IntCounterVec,
}

/// What became of each event read.
pub struct EventOutcomes {
    pub matched: IntCounter,
    pub unmatched: IntCounter,
    pub duplicate: IntCounter,
    pub quarantined: IntCounter,
}

/// The rule set as a whole.
pub struct RuleSetMetrics {
    pub loaded: IntGauge,
    pub reloads_ok: IntCounter,
    pub reloads_failed: IntCounter,
    /// 1 when the newest reload went well; 0 while an older set runs because the newest is broken.
    pub last_reload_ok: IntGauge,
    pub last_reload_timestamp: Gauge,
}

/// What correlation and the store hold.
pub struct StateMetrics {
    pub evidence_rows: IntGauge,
    pub groups: IntGauge,
    pub store_bytes: IntGauge,
    /// Evidence lost to a disk quota.
    pub evictions: IntCounter,
    /// Windows that left memory; their evidence stays in the store.
    pub spills: IntCounter,
    /// Batches of a fleet's worker that were judged again because another was first.
    pub conflicts: IntCounter,
    pub commits: IntCounter,
    pub commit_failures: IntCounter,
}

/// Delivery as a whole.
pub struct DeliveryMetrics {
    pub outbox: IntGauge,
    pub outbox_oldest_age: Gauge,
    pub silences_active: IntGauge,
    pub heartbeats_ok: IntCounter,
    pub heartbeats_failed: IntCounter,
    pub quarantine_records: IntGauge,
    /// Commands given to other workers of the fleet, as they were last looked for.
    pub orders: IntGauge,
}

/// The fleet, as this worker sees it.
pub struct FleetMetrics {
    /// 1 while this worker leads.
    pub leading: IntGauge,
    /// Gaps of the hash range that no lease covers.
    pub holes: IntGauge,
    /// Checkpoints refused because another worker holds the lease.
    pub refused_commits: IntCounter,
}

/// One input stream, file set or standard input.
#[derive(Clone)]
pub struct SourceMetrics {
    pub records: IntCounter,
    pub bytes: IntCounter,
    /// Events found inside the records, quarantined ones included.
    pub events: IntCounter,
}

/// One rule or correlation.
#[derive(Clone)]
pub struct RuleMetrics {
    pub matches: IntCounter,
    pub findings: IntCounter,
    /// Thread time spent on the rule, from samples.
    pub cost_seconds: Counter,
    /// Evidence refused because the account has used up its quota.
    pub quota_hits: IntCounter,
}

/// One shard that this process reads.
#[derive(Clone)]
pub struct ShardMetrics {
    /// Seconds from a record's arrival to its reading; 0 when caught up.
    pub lag: Gauge,
    checkpoint_ms: Arc<AtomicI64>,
}

/// One bounded queue.
#[derive(Clone)]
pub struct QueueMetrics {
    pub items: IntGauge,
    pub bytes: IntGauge,
    /// Times that a writer had to wait for room.
    pub waits: IntCounter,
}

/// One destination of alerts.
#[derive(Clone)]
pub struct SinkMetrics {
    pub delivered: IntCounter,
    pub retried: IntCounter,
    pub rejected: IntCounter,
    pub silenced: IntCounter,
    pub grouped: IntCounter,
    pub fallback: IntCounter,
    /// One request, its answer included.
    pub request: Latency,
    /// 1 while the newest request was accepted.
    pub up: IntGauge,
    pub dead_letters: IntGauge,
}

/// One operation of an AWS service.
#[derive(Clone)]
pub struct CallMetrics {
    pub ok: IntCounter,
    pub throttled: IntCounter,
    pub failed: IntCounter,
}

impl ShardMetrics {
    /// A checkpoint was made durable at that time, in milliseconds since the epoch.
    pub fn checkpointed(&self, now_ms: i64) {
        self.checkpoint_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let r = Families(Registry::new());
        r.build_info();
        let events = r.counters("events_total", "Events by what became of them; the sum equals that of events_read_total.", &["outcome"]);
        let call_help = "Calls to AWS services by operation and outcome.";
        let metrics = Self {
            source_records: r.counters("source_records_total", "Records read.", &["source"]),
            source_bytes: r.counters("source_bytes_total", "Bytes of records read, as the source carried them.", &["source"]),
            events_read: r.counters("events_read_total", "Events found in the records read, quarantined ones included.", &["source"]),
            quarantine_reasons: r.counters("quarantined_records_total", "Records kept aside because they could not be decoded.", &["reason"]),
            events: EventOutcomes {
                matched: events.with_label_values(&["matched"]),
                unmatched: events.with_label_values(&["unmatched"]),
                duplicate: events.with_label_values(&["duplicate"]),
                quarantined: events.with_label_values(&["quarantined"]),
            },
            events_undated: r.counter("events_undated_total", "Matched events whose own time is missing or unreadable."),
            events_skewed: r.counter("events_skewed_total", "Matched events whose time lies more than five minutes after their arrival."),
            events_late: r.counter("events_late_total", "Matches too late to be evidence of any window that can still fire."),
            rule_matches: r.counters(
                "rule_matches_total",
                "Events that a rule matched; for a correlation, the evidence it took.",
                &["rule", "level"],
            ),
            rule_findings: r.counters("findings_total", "Findings by rule and level.", &["rule", "level"]),
            rule_cost: r.float_counters(
                "rule_cost_seconds_total",
                "Thread time spent on a rule, estimated from a sample of the events; of correlations all is timed.",
                &["rule"],
            ),
            rule_quota_hits: r.counters("rule_quota_hits_total", "Evidence refused because an account used up its quota.", &["rule"]),
            rules: RuleSetMetrics::new(&r),
            state: StateMetrics::new(&r),
            shard_lag: r.gauges("shard_lag_seconds", "Time from the arrival of a record to its reading.", &["shard"]),
            shard_checkpoint_age: r.gauges("shard_checkpoint_age_seconds", "Time since the last durable checkpoint.", &["shard"]),
            shards: Mutex::default(),
            queue_items: r.int_gauges("queue_items", "Items waiting in a queue.", &["queue"]),
            queue_bytes: r.int_gauges("queue_bytes", "Bytes waiting in a queue.", &["queue"]),
            queue_capacity: r.int_gauges("queue_capacity_bytes", "Bound of a queue; the reading slows down when it is full.", &["queue"]),
            queue_waits: r.counters("queue_waits_total", "Times that a writer waited for room in a queue.", &["queue"]),
            queues: Mutex::default(),
            memory_used: r.int_gauges("memory_used_bytes", "Memory in use of a budget.", &["budget"]),
            memory_budget: r.int_gauges("memory_budget_bytes", "Bound of a memory budget.", &["budget"]),
            alerts: r.counters("alerts_total", "Alerts by sink and outcome.", &["sink", "outcome"]),
            sink_latency: r.latencies("sink_request_seconds", "Duration of one request to a sink.", "sink"),
            sink_up: r.int_gauges("sink_up", "Whether the newest request to a sink was accepted.", &["sink"]),
            dead_letters: r.int_gauges("dead_letters", "Alerts that a sink refused for good, kept for replay.", &["sink"]),
            delivery: DeliveryMetrics::new(&r),
            stages: r.latencies("stage_seconds", "Duration of one batch in a stage; detect includes decoding.", "stage"),
            end_to_end: r.latencies("record_age_seconds", "Age of a record, since it became available, when its finding or alert was made.", "at"),
            leases: r.int_gauges("leases", "Leases of the application's table, by holder.", &["state"]),
            fleet: FleetMetrics::new(&r),
            lease_events: r.counters("lease_events_total", "What happened to leases.", &["event"]),
            aws_calls: r.counters("aws_calls_total", call_help, &["service", "operation", "outcome"]),
            dynamodb_capacity_units: r.float_counter("dynamodb_capacity_units_total", "Read and write units consumed, as DynamoDB tells."),
            state_units: r.float_counters(
                "dynamodb_state_units_total",
                "Read and write units of the fleet's state table by call, as DynamoDB tells.",
                &["operation"],
            ),
            source_gaps: r.counters("source_gaps_total", "Stretches of a stream that could not be read any more.", &["reason"]),
            admin_requests: r.counters("admin_requests_total", "Requests to the status page and its API.", &["outcome"]),
            registry: r.0,
        };
        metrics.create_fixed_series();
        metrics
    }

    /// Series whose labels the code knows stand at 0 from the start.
    fn create_fixed_series(&self) {
        STAGES.iter().for_each(|stage| drop(self.stages.with(stage)));
        ["finding", "alert"].iter().for_each(|at| drop(self.end_to_end.with(at)));
        LEASE_STATES.iter().for_each(|state| drop(self.leases.with_label_values(&[*state])));
        LEASE_EVENTS.iter().for_each(|event| drop(self.lease_events.with_label_values(&[*event])));
        ["retention", "truncated"].iter().for_each(|reason| drop(self.source_gaps.with_label_values(&[*reason])));
        ["ok", "refused", "limited"].iter().for_each(|outcome| drop(self.admin_requests.with_label_values(&[*outcome])));
    }

    pub fn source(&self, name: &str) -> SourceMetrics {
        let (records, bytes, events) = (&self.source_records, &self.source_bytes, &self.events_read);
        let l = &[name];
        SourceMetrics { records: records.with_label_values(l), bytes: bytes.with_label_values(l), events: events.with_label_values(l) }
    }

    /// `reason` is one of the decoder's own words.
    pub fn quarantined(&self, reason: &'static str) -> IntCounter {
        self.quarantine_reasons.with_label_values(&[reason])
    }

    /// Call it for every rule of a newly loaded set, in the rules' order, and `remove_rule` for those that it no longer has.
    pub fn rule(&self, id: &str, level: &str) -> RuleMetrics {
        RuleMetrics {
            matches: self.rule_matches.with_label_values(&[id, level]),
            findings: self.rule_findings.with_label_values(&[id, level]),
            cost_seconds: self.rule_cost.with_label_values(&[id]),
            quota_hits: self.rule_quota_hits.with_label_values(&[id]),
        }
    }

    /// Drops the series of a rule that a reload took away.
    pub fn remove_rule(&self, id: &str, level: &str) {
        // A series that is not there is as good as removed.
        let _ = self.rule_matches.remove_label_values(&[id, level]);
        let _ = self.rule_findings.remove_label_values(&[id, level]);
        let _ = self.rule_cost.remove_label_values(&[id]);
        let _ = self.rule_quota_hits.remove_label_values(&[id]);
    }

    /// `started_ms`: the checkpoint's age counts from here until the first one.
    pub fn shard(&self, shard: &str, started_ms: i64) -> ShardMetrics {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let checkpoint_ms = shards.entry(shard.into()).or_insert_with(|| Arc::new(AtomicI64::new(started_ms))).clone();
        ShardMetrics { lag: self.shard_lag.with_label_values(&[shard]), checkpoint_ms }
    }

    /// The shard is closed or another worker's now.
    pub fn remove_shard(&self, shard: &str) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).remove(shard);
        let _ = self.shard_lag.remove_label_values(&[shard]);
        let _ = self.shard_checkpoint_age.remove_label_values(&[shard]);
    }

    pub fn queue(&self, name: &'static str, capacity_bytes: u64) -> QueueMetrics {
        let l = &[name];
        self.queue_capacity.with_label_values(l).set(gauge_value(capacity_bytes));
        let (items, bytes) = (self.queue_items.with_label_values(l), self.queue_bytes.with_label_values(l));
        let queue = QueueMetrics { items, bytes, waits: self.queue_waits.with_label_values(l) };
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|(known, ..)| *known != name);
        queues.push((name, capacity_bytes, queue.clone()));
        queue
    }

    /// Name, capacity in bytes and gauges of each queue.
    pub fn queues(&self) -> Vec<(&'static str, u64, QueueMetrics)> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The gauge of what is in use of a named memory budget.
    pub fn memory(&self, name: &'static str, budget_bytes: u64) -> IntGauge {
        self.memory_budget.with_label_values(&[name]).set(gauge_value(budget_bytes));
        self.memory_used.with_label_values(&[name])
    }

    pub fn sink(&self, name: &str) -> SinkMetrics {
        let [delivered, retried, rejected, silenced, grouped, fallback] = ALERT_OUTCOMES.map(|o| self.alerts.with_label_values(&[name, o]));
        let up = self.sink_up.with_label_values(&[name]);
        // Until told otherwise a sink counts as working, so that a fresh start raises no alarm.
        up.set(1);
        let (request, dead_letters) = (self.sink_latency.with(name), self.dead_letters.with_label_values(&[name]));
        SinkMetrics { delivered, retried, rejected, silenced, grouped, fallback, request, up, dead_letters }
    }

    /// `stage` is one of `STAGES`.
    pub fn stage(&self, stage: &'static str) -> Latency {
        debug_assert!(STAGES.contains(&stage), "{stage} would be missing at the start and on the page");
        self.stages.with(stage)
    }

    /// A record's age when its finding was made.
    pub fn record_to_finding(&self) -> Latency {
        self.end_to_end.with("finding")
    }

    /// A record's age when its alert had been accepted by a sink.
    pub fn record_to_alert(&self) -> Latency {
        self.end_to_end.with("alert")
    }

    pub fn set_leases(&self, held: usize, foreign: usize, unassigned: usize) {
        for (state, n) in LEASE_STATES.iter().zip([held, foreign, unassigned]) {
            self.leases.with_label_values(&[*state]).set(gauge_value(n as u64));
        }
    }

    /// `event`: taken (free), expired (taken from a silent worker), renewed, lost, released or failed.
    pub fn lease_event(&self, event: &'static str) -> IntCounter {
        self.lease_events.with_label_values(&[event])
    }

    /// `service`: kinesis, dynamodb, sns or logs; `operation` as the service names it.
    pub fn aws_call(&self, service: &'static str, operation: &'static str) -> CallMetrics {
        let [ok, throttled, failed] = CALL_OUTCOMES.map(|outcome| self.aws_calls.with_label_values(&[service, operation, outcome]));
        CallMetrics { ok, throttled, failed }
    }

    /// `operation` on the fleet's state table, as DynamoDB names it.
    pub fn dynamodb_state_units(&self, operation: &'static str) -> Counter {
        self.state_units.with_label_values(&[operation])
    }

    /// `reason`: `retention` (the checkpoint is older than the stream's memory) or `truncated`.
    pub fn source_gap(&self, reason: &'static str) -> IntCounter {
        self.source_gaps.with_label_values(&[reason])
    }

    /// `outcome`: ok, refused (no token, bad request) or limited (too many connections, too slow).
    pub fn admin_request(&self, outcome: &'static str) -> IntCounter {
        self.admin_requests.with_label_values(&[outcome])
    }

    /// The text format, version 0.0.4. `now_ms`: milliseconds since the epoch.
    pub fn render(&self, now_ms: i64) -> String {
        for (shard, at_ms) in self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let age_ms = now_ms.saturating_sub(at_ms.load(Ordering::Relaxed)).max(0);
            self.shard_checkpoint_age.with_label_values(&[shard]).set(age_ms as f64 / 1000.0);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("families of the registry are consistent");
        String::from_utf8(text).expect("names and labels are UTF-8")
    }
}

impl RuleSetMetrics {
    fn new(r: &Families) -> Self {
        let reloads = r.counters("rules_reloads_total", "Attempts to load the rules anew.", &["outcome"]);
        Self {
            loaded: r.int_gauge("rules_loaded", "Rules and correlations in force."),
            reloads_ok: reloads.with_label_values(&["ok"]),
            reloads_failed: reloads.with_label_values(&["failed"]),
            last_reload_ok: r.int_gauge("rules_last_reload_successful", "Whether the newest reload of the rules went well."),
            last_reload_timestamp: r.gauge("rules_last_reload_success_timestamp_seconds", "When the rules in force were loaded."),
        }
    }
}

impl StateMetrics {
    fn new(r: &Families) -> Self {
        let commits = r.counters("store_commits_total", "Transactions of the state store.", &["outcome"]);
        Self {
            evidence_rows: r.int_gauge("state_evidence_rows", "Items of evidence that correlations hold."),
            groups: r.int_gauge("state_groups", "Groups with evidence."),
            store_bytes: r.int_gauge("store_size_bytes", "Size of the state store."),
            evictions: r.counter("state_evictions_total", "Items of evidence lost to a quota before their time."),
            spills: r.counter("state_spills_total", "Windows that left memory for want of room; their evidence stays in the store."),
            conflicts: r.counter("state_conflicts_total", "Batches judged again because another worker changed the same rows first."),
            commits: commits.with_label_values(&["ok"]),
            commit_failures: commits.with_label_values(&["failed"]),
        }
    }
}

impl FleetMetrics {
    fn new(r: &Families) -> Self {
        Self {
            leading: r.int_gauge("lease_leader", "Whether this worker leads the application."),
            holes: r.int_gauge("lease_holes", "Gaps of the hash range that no lease covers."),
            refused_commits: r.counter("lease_commits_refused_total", "Checkpoints refused because another worker holds the lease."),
        }
    }
}

impl DeliveryMetrics {
    fn new(r: &Families) -> Self {
        let heartbeats = r.counters("heartbeats_total", "Signs of life sent to the dead man's switch.", &["outcome"]);
        Self {
            outbox: r.int_gauge("outbox_alerts", "Alerts waiting to be delivered."),
            outbox_oldest_age: r.gauge("outbox_oldest_age_seconds", "Age of the oldest alert that waits."),
            silences_active: r.int_gauge("silences_active", "Silences and maintenance windows in force."),
            heartbeats_ok: heartbeats.with_label_values(&["ok"]),
            heartbeats_failed: heartbeats.with_label_values(&["failed"]),
            quarantine_records: r.int_gauge("quarantine_records", "Records kept aside, ready for inspection and replay."),
            orders: r.int_gauge("orders_waiting", "Commands given to other workers that wait for the one that delivers."),
        }
    }
}

fn gauge_value(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
