//! What `explain` works out from its lines is what the engine found, for every built-in rule on the events of its cases.

use super::*;
use crate::rule::{Lists, Options, Source, ast::Profile, builtin, cases, load_texts};

#[test]
fn lines_add_up_to_the_engines_verdict() {
    let text_of = |wanted: &str| builtin::FILES.iter().find(|(name, _)| *name == wanted).map(|(_, text)| *text);
    let (mut judged, mut matched) = (0, 0);
    for (name, text) in builtin::FILES.iter().filter(|(name, _)| name.ends_with(builtin::CASES)) {
        let rule_name = name.replace(builtin::CASES, ".yml");
        let (cases, wrong) = cases::parse(&(*name).into(), text);
        assert!(wrong.is_empty(), "{name}");
        let options = Options { lists: Lists::new(cases.lists.clone()), profile: Profile::Paranoid };
        let rule_text = text_of(&rule_name).unwrap_or_else(|| panic!("no rule file {rule_name}"));
        let loaded = load_texts(vec![Source { name: rule_name.as_str().into(), text: rule_text.into() }], &options);
        for linked in &loaded.set.rules {
            let mut probe = Probe::new(&linked.rule, &loaded.set.own_accounts).unwrap();
            for event in cases.cases.iter().flat_map(|case| &case.events) {
                Decoder::default().record_after(&event.data, None, &mut |item| {
                    let Item::Event(event) = item else { return };
                    let Some(verdict) = probe.judge(&event) else { return };
                    let worked_out = linked.rule.conditions.iter().any(|condition| probe.holds(&condition.value, &verdict));
                    assert_eq!(worked_out, verdict.matched, "{rule_name}: {}", verdict.label);
                    judged += 1;
                    matched += usize::from(verdict.matched);
                });
            }
        }
    }
    assert!(judged > 1_000 && matched > 300 && judged > matched, "{judged} judged, {matched} matched");
}
