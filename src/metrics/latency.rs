//! Latencies: recorded in hdrhistograms, shown as Prometheus histograms.
//!
//! In: durations, one `record` a batch, commit or request. Out: cumulative buckets for the scrape, exact percentiles for the
//! page. Invariant: a series' counts never fall while the process lives.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use prometheus::{
    core::{Collector, Desc},
    proto,
};

/// Upper bounds in seconds of the exported buckets. The last holds what an alert may take in the worst healthy case.
const BOUNDS_SECONDS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0];

/// What is longer counts as this long: an hour, in microseconds.
const MAX_US: u64 = 3_600_000_000;

struct Series {
    label: String,
    counts: Mutex<Recorded>,
}

struct Recorded {
    microseconds: Histogram<u64>,
    sum_us: u64,
}

/// One family: a histogram per value of its single label.
#[derive(Clone)]
pub(super) struct LatencyFamily {
    desc: Arc<Desc>,
    label: &'static str,
    series: Arc<Mutex<Vec<Arc<Series>>>>,
}

/// One series of a family. Cloning is cheap; the lock is held for some nanoseconds a record.
#[derive(Clone)]
pub struct Latency(Arc<Series>);

/// Exact to one per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(MAX_US).min(MAX_US);
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.microseconds.saturating_record(us);
        counts.sum_us = counts.sum_us.saturating_add(us);
    }

    pub fn percentiles(&self) -> Percentiles {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |q| counts.microseconds.value_at_quantile(q) as f64 / 1000.0;
        Percentiles { count: counts.microseconds.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: counts.microseconds.max() as f64 / 1000.0 }
    }
}

impl LatencyFamily {
    pub(super) fn new(name: &str, help: &str, label: &'static str) -> Self {
        let desc = Desc::new(name.into(), help.into(), vec![label.into()], Default::default()).expect("names in the code are valid");
        Self { desc: Arc::new(desc), label, series: Arc::default() }
    }

    /// The series of that label value, made at its first call.
    pub(super) fn with(&self, value: &str) -> Latency {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = series.iter().find(|s| s.label == value) {
            return Latency(known.clone());
        }
        let microseconds = Histogram::new_with_bounds(1, MAX_US, 2).expect("the bounds are constant and valid");
        let made = Arc::new(Series { label: value.into(), counts: Mutex::new(Recorded { microseconds, sum_us: 0 }) });
        series.push(made.clone());
        Latency(made)
    }
}

impl Collector for LatencyFamily {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(series.iter().map(|s| metric(self.label, s)).collect());
        vec![family]
    }
}

fn metric(name: &str, series: &Series) -> proto::Metric {
    let counts = series.counts.lock().unwrap_or_else(PoisonError::into_inner);
    let mut below = 0;
    let mut values = counts.microseconds.iter_recorded().peekable();
    let buckets = BOUNDS_SECONDS.iter().map(|&bound| {
        let bound_us = (bound * 1e6) as u64;
        while let Some(value) = values.next_if(|v| v.value_iterated_to() <= bound_us) {
            below += value.count_since_last_iteration();
        }
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.microseconds.len());
    histogram.set_sample_sum(counts.sum_us as f64 / 1e6);
    let mut label = proto::LabelPair::default();
    label.set_name(name.into());
    label.set_value(series.label.clone());
    let mut metric = proto::Metric::from_label(vec![label]);
    metric.set_histogram(histogram);
    metric
}
