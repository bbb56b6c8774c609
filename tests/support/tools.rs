//! What a test may find on the machine: installed tools, and the shared samples beside the checkout.
//!
//! In: a name. Out: its path, or `None` after `left out: …` has been printed. Invariant: a test that gets `None` passes.
#![allow(dead_code)]

use std::{
    env,
    path::{Path, PathBuf},
};

/// Says that a test did not test `what`; `tests/all` lists these lines.
pub fn left_out(what: &str, why: &str) {
    println!("left out: {what} ({why})");
}

/// The folder `../shared`, or where `TRAILWARDEN_SHARED` says.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let found = env::var_os("TRAILWARDEN_SHARED").map_or_else(beside, PathBuf::from).join(path);
    if !found.exists() {
        left_out(path, "no shared folder beside the checkout");
        return None;
    }
    Some(found)
}

/// The folder that `tests/setup` fills: `venv/bin` and `node_modules`.
pub fn tools() -> PathBuf {
    env::var_os("TRAILWARDEN_TOOLS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"), PathBuf::from)
}

/// An npm package's folder.
pub fn node_package(name: &str) -> Option<PathBuf> {
    let found = tools().join("node_modules").join(name);
    if !found.exists() {
        left_out(name, "run tests/setup");
        return None;
    }
    Some(found)
}

/// An executable of that name: of the tools, of the path, of Debian's folders that are on no path.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [tools().join("venv/bin"), "/usr/lib/postgresql/15/bin".into(), "/usr/sbin".into()];
    let found = folders.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        left_out(name, "run tests/setup");
    }
    found
}
