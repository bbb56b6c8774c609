//! Policy: which alert goes to which sinks, what is silenced, and when a rule fires so often that its alerts share a page.
//!
//! In: alerts, the config, silences, the time. Out: sink names and verdicts. Invariant: nothing here drops an alert; what is
//! silenced or folded into a storm is counted and still goes to the archives.

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Level};

mod silence;
mod storm;

pub use silence::{Silence, SilenceError, SilenceRequest, Window, WindowConfig};
pub use storm::{StormConfig, StormControl, StormRow, Verdict};

/// The key `routing` of the config.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Every route whose `match` holds applies, in their order. Without routes, every alert goes to every sink.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// Planned quiet: what matches is archived and shown, and pages nobody.
    #[serde(default)]
    pub maintenance: Vec<WindowConfig>,
    /// When many incidents of one rule share a page.
    #[serde(default)]
    pub storm: StormConfig,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Which alerts; left out: all.
    #[serde(default, rename = "match")]
    pub matching: Matcher,
    /// Names of sinks.
    pub sinks: Vec<String>,
    /// An alert that this route takes is shown to no later one.
    #[serde(default)]
    pub stop: bool,
}

/// Every key that is given must hold; of a list, one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// This level or a more urgent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_level: Option<Level>,
    /// Rule ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// 12-digit account ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// AWS regions: `eu-west-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// `backup`, `encryption`, `identity`, `monitoring`, `network`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pillars: Vec<String>,
    /// Rule tags in full: `attack.t1490`, `service.rds`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Values that the alert's group must have, all of them: `{userIdentity.arn: arn:…}`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub group: std::collections::BTreeMap<String, String>,
}

impl Matcher {
    pub fn matches(&self, alert: &Alert) -> bool {
        let listed = |list: &[String], value: &str| list.is_empty() || list.iter().any(|entry| entry == value);
        self.min_level.is_none_or(|min| alert.rule.level >= min)
            && listed(&self.rules, &alert.rule.id)
            && listed(&self.accounts, &alert.account)
            && listed(&self.regions, &alert.region)
            && listed(&self.pillars, alert.pillar().unwrap_or_default())
            && (self.tags.is_empty() || self.tags.iter().any(|tag| alert.rule.tags.contains(tag)))
            && self.group.iter().all(|(name, value)| alert.group.iter().any(|(n, v)| n == name && v == value))
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is wrong with the routes of a config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("routing.routes[{route}]: no sink is called `{name}`; there are: {known}")]
    UnknownSink { route: usize, name: String, known: String },
    #[error("routing.routes[{route}]: `sinks` is empty; name one, or leave the route out")]
    NoSink { route: usize },
    #[error("routing.maintenance[{window}]: {detail}")]
    Window { window: usize, detail: String },
}

/// The routes, their sinks resolved to places in the list given to `new`.
#[derive(Debug, Clone)]
pub struct Router {
    routes: Vec<(Matcher, Vec<usize>, bool)>,
    sinks: usize,
    windows: Vec<Window>,
}

impl Router {
    pub fn new(config: &Config, sinks: &[impl AsRef<str>]) -> Result<Self, RouteError> {
        let mut routes = Vec::new();
        for (number, route) in config.routes.iter().enumerate() {
            if route.sinks.is_empty() {
                return Err(RouteError::NoSink { route: number });
            }
            let place = |name: &String| {
                sinks.iter().position(|s| s.as_ref() == name).ok_or_else(|| RouteError::UnknownSink {
                    route: number,
                    name: name.clone(),
                    known: sinks.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
                })
            };
            let places = route.sinks.iter().map(place).collect::<Result<_, _>>()?;
            routes.push((route.matching.clone(), places, route.stop));
        }
        let window = |(number, config)| Window::new(config).map_err(|detail| RouteError::Window { window: number, detail });
        let windows = config.maintenance.iter().enumerate().map(window).collect::<Result<_, _>>()?;
        Ok(Self { routes, sinks: sinks.len(), windows })
    }

    /// Places of the sinks that the alert goes to, each once, in ascending order.
    pub fn route(&self, alert: &Alert) -> Vec<usize> {
        if self.routes.is_empty() {
            return (0..self.sinks).collect();
        }
        let mut places = Vec::new();
        for (matching, sinks, stop) in &self.routes {
            if matching.matches(alert) {
                places.extend_from_slice(sinks);
                if *stop {
                    break;
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Whether some level of alert may reach no sink: worth a warning at the start.
    pub fn has_gap(&self) -> bool {
        !self.routes.is_empty() && !self.routes.iter().any(|(matching, ..)| matching.is_empty())
    }

    /// Why the alert pages nobody now: a maintenance window's reason.
    pub fn maintenance(&self, alert: &Alert, now_ms: i64) -> Option<&str> {
        self.windows.iter().find(|w| w.is_open(now_ms) && w.matching.matches(alert)).map(|w| w.reason.as_str())
    }

    pub fn windows_open(&self, now_ms: i64) -> usize {
        self.windows.iter().filter(|w| w.is_open(now_ms)).count()
    }
}

#[cfg(test)]
mod tests;
