//! Alerts about the streams themselves.
//!
//! In: notices of consumer and leases. Out: alerts in the outbox. Invariant: a notice is one alert an hour for each thing it is
//! about, however often it is raised and by however many restarts.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::alert::{Alert, Level, RuleInfo};
use crate::correlate::{HOUR_MS, digest, hex};
use crate::deliver::DeliveringView;
use crate::lease::{Notice, NoticeKind};
use crate::pipeline::daemon::now_ms;
use crate::store::{Store, StoreError, outbox_row};

/// Ids that are remembered; beyond, a page may be sent anew under the same key.
const MAX_TOLD: usize = 1_000;

/// Tells until the last sender is gone.
pub async fn tell(mut notices: mpsc::Receiver<Notice>, store: Arc<dyn Store>, delivering: DeliveringView) {
    let mut told = HashSet::new();
    while let Some(notice) = notices.recv().await {
        let alert = alert(&notice, now_ms());
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        if !told.insert(alert.id.clone()) {
            continue;
        }
        let store = store.clone();
        match tokio::task::spawn_blocking(move || keep(&alert, store.as_ref())).await {
            Ok(Ok(())) => delivering.borrow().desk.iter().for_each(|desk| desk.wake()),
            Ok(Err(error)) => tracing::error!("a notice about a stream could not be kept as an alert: {error}"),
            Err(_) => return,
        }
    }
}

fn keep(alert: &Alert, store: &dyn Store) -> Result<(), StoreError> {
    outbox_row(alert).map_or(Ok(()), |row| store.commit(vec![row]))
}

fn alert(notice: &Notice, now_ms: i64) -> Alert {
    let hour = now_ms.div_euclid(HOUR_MS);
    let kind = notice.kind.to_string();
    let id = hex(&digest(&[b"notice", kind.as_bytes(), notice.about.as_bytes(), &hour.to_be_bytes()]));
    let (level, title, next) = about(notice.kind);
    let mut alert = Alert {
        incident: id.clone(),
        id,
        // Restarts within the hour find the same row of the outbox.
        time_ms: hour * HOUR_MS,
        rule: Arc::new(RuleInfo {
            id: format!("trailwarden-{}", kind.replace('_', "-")),
            title: title.into(),
            level,
            tags: vec!["pillar.monitoring".into()],
            description: "Trailwarden's own reading of a stream is impaired: what happened meanwhile may be seen late or not at all.".into(),
            false_positives: Vec::new(),
            next: Some(next.into()),
            resolve_after_ms: None,
        }),
        account: String::new(),
        region: String::new(),
        group: vec![("stream".into(), notice.about.clone())],
        summary: format!("{}: {}", notice.about, notice.message),
        events: Vec::new(),
        count: 1,
        late: false,
        resolved: false,
        arrived_ms: 0,
    };
    alert.redact();
    alert
}

fn about(kind: NoticeKind) -> (Level, &'static str, &'static str) {
    match kind {
        NoticeKind::CheckpointPastRetention => (
            Level::High,
            "Records left the stream before they were read",
            "Replay the gap with `scan` from the trail's bucket, then raise the stream's retention or add workers.",
        ),
        NoticeKind::StreamRecreated => {
            (Level::High, "A stream was deleted and made anew", "Find who deleted it, and replay what was in it from the trail's bucket.")
        }
        NoticeKind::StreamMissing => (Level::High, "A stream is missing", "Check the stream's name and region in the config, and who deleted it."),
        NoticeKind::ShardGone => {
            (Level::Medium, "A shard went before its end was read", "Compare the trail's bucket with what was read, and replay the gap with `scan`.")
        }
        NoticeKind::KmsDenied => {
            (Level::High, "The stream's key refuses to decrypt", "Allow kms:Decrypt to this role in the key's policy; nothing is read until then.")
        }
        NoticeKind::AccessDenied => {
            (Level::High, "Reading a stream is denied", "Compare the role's policy with the one in deploy/; nothing is read until then.")
        }
        NoticeKind::Unreadable => (
            Level::High,
            "Records can't be decoded",
            "`trailwarden quarantine list` names the reasons, `show` the bytes. Something else writes to the stream, or somebody hides in it.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn a_notice_is_one_alert_an_hour() {
        let notice = Notice { kind: NoticeKind::KmsDenied, about: "audit".into(), message: "password=hunter2 is no secret here".into() };
        let store = MemoryStore::default();
        for minutes in [1, 59, 61] {
            keep(&alert(&notice, minutes * 60_000), &store).unwrap();
        }
        let alerts: Vec<_> = store.outbox_list(10).unwrap().into_iter().map(|(_, alert)| alert).collect();
        assert_eq!(alerts.len(), 2);
        assert_ne!(alerts[0].id, alerts[1].id);
        assert!(!alerts[0].summary.contains("hunter2"), "{}", alerts[0].summary);
    }
}
