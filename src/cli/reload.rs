//! Exchanges the rules of a running daemon: at SIGHUP, and when a rules folder has changed.
//!
//! In: signals, the folders' files. Out: a new set for the workers. Invariant: a set with an error replaces nothing, and the
//! error stands on the page until a set loads.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Board;
use crate::config;
use crate::metrics::Metrics;
use crate::pipeline::{Detectors, daemon::now_ms};
use crate::rule::Input;

/// A change is loaded once it has been the same for two looks, so that half-written files are not read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Folders in folders that are looked at; links may go round.
const MAX_DEPTH: usize = 16;

/// Reloads until the daemon ends.
///
/// # Errors
/// SIGHUP can't be listened to.
pub fn start(wanted: config::Rules, rules: watch::Sender<Arc<Detectors>>, board: Arc<Board>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let folders = folders(&wanted);
    let mut loaded = look(&folders);
    tokio::spawn(async move {
        let mut seen = loaded;
        loop {
            tokio::select! {
                received = hangup.recv() => match received {
                    Some(()) => (loaded, seen) = (look(&folders), look(&folders)),
                    None => return,
                },
                () = tokio::time::sleep(LOOK_EVERY), if !folders.is_empty() => {
                    let before = std::mem::replace(&mut seen, look(&folders));
                    if seen == loaded || seen != before {
                        continue;
                    }
                    loaded = seen;
                }
            }
            let wanted = wanted.clone();
            let Ok(fresh) = tokio::task::spawn_blocking(move || super::run::detectors(&wanted)).await else { return };
            exchange(fresh, &rules, &board, &metrics);
        }
    });
    Ok(())
}

fn exchange(fresh: anyhow::Result<Detectors>, rules: &watch::Sender<Arc<Detectors>>, board: &Board, metrics: &Metrics) {
    match fresh {
        Ok(fresh) => {
            tracing::info!(rules = fresh.rules.len(), "the rules were loaded anew");
            metrics.rules.reloads_ok.inc();
            metrics.rules.last_reload_ok.set(1);
            metrics.rules.last_reload_timestamp.set(now_ms() as f64 / 1e3);
            let _ = rules.send(Arc::new(fresh));
        }
        Err(error) => {
            tracing::error!("the rules were not loaded, the old ones stay: {error:#}");
            metrics.rules.reloads_failed.inc();
            metrics.rules.last_reload_ok.set(0);
            board.reload_failed(format!("{error:#}"), now_ms());
        }
    }
}

/// Those that can change.
fn folders(wanted: &config::Rules) -> Vec<PathBuf> {
    wanted.folders.iter().filter(|folder| Input::from_argument(folder) != Input::Builtin).cloned().collect()
}

/// What the folders' files are: names, sizes, times.
fn look(folders: &[PathBuf]) -> u64 {
    let mut hash = DefaultHasher::new();
    folders.iter().for_each(|folder| look_at(folder, 0, &mut hash));
    hash.finish()
}

fn look_at(path: &Path, depth: usize, hash: &mut DefaultHasher) {
    path.hash(hash);
    let Ok(about) = std::fs::metadata(path) else { return };
    if !about.is_dir() {
        let modified = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (about.len(), modified).hash(hash);
    } else if depth < MAX_DEPTH
        && let Ok(entries) = std::fs::read_dir(path)
    {
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| look_at(path, depth + 1, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "title: One\nid: 11111111-0000-4000-8000-000000000001\nlogsource: {product: aws, service: cloudtrail}\ndetection: {selection: {eventName: StopLogging}, condition: selection}\n";

    async fn until(what: &str, mut is: impl FnMut() -> bool) {
        for _ in 0..200 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not within 20 s: {what}");
    }

    #[tokio::test]
    async fn a_changed_folder_is_loaded_and_a_broken_one_is_told() {
        let folder = std::env::temp_dir().join(format!("trailwarden-reload-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("one.yml"), RULE).unwrap();
        let wanted = config::Rules { folders: vec![folder.clone()], ..config::Rules::default() };
        let (rules, current) = watch::channel(Arc::new(super::super::run::detectors(&wanted).unwrap()));
        let (board, metrics) = (Board::new(0), Arc::new(Metrics::new()));
        start(wanted, rules, board.clone(), metrics.clone()).unwrap();

        std::fs::write(folder.join("two.yml"), RULE.replace("000001", "000002").replace("One", "Two")).unwrap();
        until("two rules", || current.borrow().rules.len() == 2).await;
        std::fs::write(folder.join("two.yml"), "title: Two\n").unwrap();
        until("the error", || board.rule_set.load().reload_error.as_deref().is_some_and(|error| error.contains("two.yml"))).await;
        assert_eq!(current.borrow().rules.len(), 2, "the old set stays");
        assert_eq!(metrics.rules.reloads_failed.get(), 1);
        std::fs::remove_file(folder.join("two.yml")).unwrap();
        until("one rule", || current.borrow().rules.len() == 1).await;
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
