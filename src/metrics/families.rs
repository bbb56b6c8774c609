//! Makes families and registers them.
//!
//! In: names, help and labels from the code. Out: handles. Invariant: every name begins with `trailwarden_` but those of the process.

use prometheus::{Counter, CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

use super::latency::LatencyFamily;

/// Makes and registers families with the prefix `trailwarden_`.
pub(super) struct Families(pub Registry);

impl Families {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("names in the code are valid");
        self.0.register(Box::new(family.clone())).expect("names in the code are distinct");
        family
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("trailwarden")
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(Self::opts(name, help)))
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Self::opts(name, help), labels))
    }

    pub fn float_counter(&self, name: &str, help: &str) -> Counter {
        self.add(Counter::with_opts(Self::opts(name, help)))
    }

    pub fn float_counters(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(Self::opts(name, help), labels))
    }

    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::with_opts(Self::opts(name, help)))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Self::opts(name, help), labels))
    }

    pub fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(Self::opts(name, help)))
    }

    pub fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    pub fn latencies(&self, name: &str, help: &str, label: &'static str) -> LatencyFamily {
        self.add(Ok(LatencyFamily::new(&format!("trailwarden_{name}"), help, label)))
    }

    pub fn build_info(&self) {
        let info = Self::opts("build_info", "The running version, as labels; always 1.");
        self.add(IntGaugeVec::new(info, &["version"])).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        self.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect("its names are its own");
    }
}
