//! What a rule set covers: pillars against services, and MITRE techniques.
//!
//! In: tags `pillar.*`, `service.*`, `attack.t*`. Out: counts of rules and correlations that run. Invariant: a rule with several
//! services counts once for each; one without a tag is named, not dropped.

use std::collections::{BTreeMap, BTreeSet};

use crate::rule::{ast::Meta, load::RuleSet};

/// In the order of the product's story.
pub const PILLARS: [&str; 7] = ["network", "identity", "encryption", "monitoring", "backup", "credential", "exfiltration"];

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Coverage {
    /// Rules and correlations that run and alert.
    pub detectors: usize,
    /// By service, then pillar.
    pub cells: BTreeMap<String, BTreeMap<String, usize>>,
    /// By technique, as `T1490` or `T1078.004`.
    pub techniques: BTreeMap<String, usize>,
    /// Titles of those without a pillar or a service.
    pub untagged: Vec<String>,
}

pub fn coverage(set: &RuleSet) -> Coverage {
    let mut coverage = Coverage::default();
    set.metas().filter(|(_, role)| role.alerts).for_each(|(meta, _)| coverage.add(meta));
    coverage.untagged.sort();
    coverage
}

impl Coverage {
    fn add(&mut self, meta: &Meta) {
        let tagged =
            |namespace: &str| -> BTreeSet<&str> { meta.tags.iter().filter_map(|tag| tag.value.strip_prefix(namespace)?.strip_prefix('.')).collect() };
        self.detectors += 1;
        let (pillars, services) = (tagged("pillar"), tagged("service"));
        if pillars.is_empty() || services.is_empty() {
            self.untagged.push(meta.title.value.clone());
        }
        for service in &services {
            for pillar in &pillars {
                *self.cells.entry((*service).to_owned()).or_default().entry((*pillar).to_owned()).or_default() += 1;
            }
        }
        for technique in tagged("attack") {
            if technique.starts_with('t') && technique[1..].starts_with(|first: char| first.is_ascii_digit()) {
                *self.techniques.entry(technique.to_uppercase()).or_default() += 1;
            }
        }
    }

    /// The known pillars, then others by name.
    pub fn pillars(&self) -> Vec<&str> {
        let used: BTreeSet<&str> = self.cells.values().flat_map(|row| row.keys()).map(String::as_str).collect();
        let known = PILLARS.into_iter().filter(|pillar| used.contains(pillar));
        known.chain(used.iter().copied().filter(|pillar| !PILLARS.contains(pillar))).collect()
    }

    /// Parent techniques, each with its own and its children's rules.
    pub fn parents(&self) -> BTreeMap<&str, usize> {
        let mut parents = BTreeMap::new();
        for (technique, count) in &self.techniques {
            *parents.entry(technique.split('.').next().unwrap_or(technique)).or_insert(0) += count;
        }
        parents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Options, Source, load_texts};

    #[test]
    fn counts_by_tag() {
        let rule = |tags: &str| format!("title: x{tags}\ntags: [{tags}]\nlogsource: {{product: a}}\ndetection: {{s: {{f: x}}, condition: s}}\n---\n");
        let text = [
            rule("pillar.backup, service.rds, service.aurora, attack.t1490, attack.impact"),
            rule("pillar.backup, service.rds, attack.t1078.004"),
            rule("attack.t1078"),
        ]
        .concat();
        let loaded = load_texts(vec![Source { name: "x.yml".into(), text: text.into() }], &Options::default());
        let coverage = coverage(&loaded.set);
        assert_eq!(coverage.detectors, 3, "{:?}", loaded.diagnostics);
        assert_eq!(coverage.cells["rds"]["backup"], 2);
        assert_eq!(coverage.cells["aurora"]["backup"], 1);
        assert_eq!(coverage.pillars(), ["backup"]);
        assert_eq!(coverage.techniques.keys().collect::<Vec<_>>(), ["T1078", "T1078.004", "T1490"]);
        assert_eq!(coverage.parents()["T1078"], 2);
        assert_eq!(coverage.untagged.len(), 1);
    }
}
