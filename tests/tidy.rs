//! The house rules that a reader of the sources can check: who imports whom, sizes, openings, unwrap, unsafe, commit subjects.
//!
//! In: `src`, `tests`, `benches` and the log of commits. Out: a list of every breach. Invariant: a new arrow between modules
//! is an edit of `ARROWS`, with its reason in the commit.

#[path = "tidy/source.rs"]
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Module, and the modules that it may import. Leaves may be imported by all and import nothing.
const ARROWS: &[(&str, &str)] = &[
    ("event", ""),
    ("position", ""),
    ("metrics", ""),
    ("lease", "position metrics"),
    ("source", "position lease metrics"),
    ("decode", "event position"),
    ("rule", "event"),
    ("detect", "event rule"),
    ("correlate", "event rule detect"),
    ("alert", "event rule detect correlate"),
    // What the calls on the shared table cost.
    ("store", "position lease correlate alert metrics"),
    ("route", "alert"),
    ("sink", "alert metrics"),
    ("deliver", "store route sink alert metrics"),
    // Silences are policy: the API takes and shows the same type that routing judges by.
    ("admin", "store alert metrics route"),
    ("demo", "event position metrics lease source decode rule detect correlate alert store route sink deliver admin"),
    ("pipeline", "event position metrics lease source decode rule detect correlate alert store route sink deliver admin"),
    ("config", "*"),
    ("cli", "*"),
    ("main", "*"),
    ("lib", "*"),
];

/// Small modules that import nothing of ours and serve all.
const LEAVES: &[&str] = &["redact", "aws"];

/// The modules that may use `anyhow`.
const ANYHOW: &[&str] = &["cli", "config", "main"];

/// The one module that may hold `unsafe`, once a measured gain asks for one.
const UNSAFE: Option<&str> = Some("event::simd");

const FILE_LINES: usize = 500;
const FILE_LINES_CAP: usize = 800;
const FUNCTION_LINES: usize = 70;
const INLINE_TEST_LINES: usize = 150;
const SUBJECT_CHARS: usize = 72;

struct File {
    path: String,
    text: String,
    tokens: Vec<source::Token>,
    /// `src/detect/index.rs` → detect, index.
    module: Vec<String>,
    /// The file is test code as a whole.
    test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    paths.iter().map(|path| file(path.strip_prefix(root()).unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap())).collect()
}

fn file(path: &str, text: &str) -> File {
    let module: Vec<String> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let test = !path.starts_with("src/") || module.iter().skip(1).any(|m| m == "tests" || m.ends_with("_tests"));
    File { path: path.to_owned(), tokens: source::tokens(text), text: text.to_owned(), module, test }
}

fn row(module: &str) -> Option<&'static str> {
    if LEAVES.contains(&module) {
        return Some("");
    }
    ARROWS.iter().find(|(name, _)| *name == module).map(|(_, to)| *to)
}

fn arrow_faults(file: &File, modules: &BTreeSet<String>) -> Vec<String> {
    let from = file.module[0].as_str();
    let Some(allowed) = row(from) else {
        return vec![format!("{}: module `{from}` has no row in ARROWS (tests/tidy.rs)", file.path)];
    };
    let mut faults = Vec::new();
    for (to, line) in source::imports(&file.tokens, &file.module) {
        let fine = to == from || !modules.contains(&to) || LEAVES.contains(&to.as_str()) || allowed == "*" || allowed.split(' ').any(|a| a == to);
        if !fine {
            faults.push(format!("{}:{line}: `{from}` may not import `{to}`", file.path));
        }
    }
    faults
}

fn size_faults(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = file.text.lines().count();
    if lines > FILE_LINES_CAP {
        faults.push(format!("{}: {lines} lines, at most {FILE_LINES_CAP}: split where the idea splits", file.path));
    }
    for function in source::extents(&file.tokens, "fn") {
        if !file.test && !function.test && function.lines > FUNCTION_LINES {
            faults.push(format!("{}:{}: fn {} has {} lines, at most {FUNCTION_LINES}", file.path, function.line, function.name, function.lines));
        }
    }
    for module in source::extents(&file.tokens, "mod") {
        if !file.test && module.name == "tests" && module.lines > INLINE_TEST_LINES {
            let home = file.path.trim_end_matches(".rs");
            faults.push(format!("{}:{}: {} lines of tests: move them to {home}/tests.rs", file.path, module.line, module.lines));
        }
    }
    faults
}

fn opening_faults(file: &File) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//!") {
        faults.push(format!("{}:1: opens without `//!` (what comes in, what goes out, one invariant)", file.path));
    }
    if file.path.ends_with("/mod.rs") {
        faults.push(format!("{}: use foo.rs beside foo/", file.path));
    }
    faults
}

fn word_faults(file: &File) -> Vec<String> {
    if file.test {
        return Vec::new();
    }
    let mut faults: Vec<String> =
        source::unwraps(&file.tokens).iter().map(|line| format!("{}:{line}: `.unwrap()`: say the invariant with `expect`", file.path)).collect();
    let module = file.module[0].as_str();
    for token in file.tokens.iter().filter(|t| !t.test) {
        match token.text.as_str() {
            "unsafe" if UNSAFE != Some(file.module.join("::").as_str()) => faults.push(format!("{}:{}: `unsafe`", file.path, token.line)),
            "anyhow" if !ANYHOW.contains(&module) => faults.push(format!("{}:{}: `anyhow` is for cli and config only", file.path, token.line)),
            _ => {}
        }
    }
    faults
}

/// Files over the 95th percentile's limit, where there are more of them than one in twenty.
fn percentile_faults(files: &[File]) -> Vec<String> {
    let mut long: Vec<String> = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            long.push(format!("{}: {lines} lines", file.path));
        }
    }
    if long.len() * 20 > files.len() {
        long.push(format!("{} of {} files have over {FILE_LINES} lines, at most one in twenty may", long.len(), files.len()));
        return long;
    }
    Vec::new()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn modules_import_only_along_the_arrows() {
    let files = rust_files("src");
    let modules: BTreeSet<String> = files.iter().map(|f| f.module[0].clone()).collect();
    assert_none(&files.iter().filter(|f| !f.test).flat_map(|f| arrow_faults(f, &modules)).collect::<Vec<_>>());
}

#[test]
fn the_arrows_make_no_cycle() {
    let mut left: BTreeMap<&str, Vec<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.split(' ').filter(|t| !t.is_empty() && *t != "*").collect())).collect();
    while let Some(free) = left.iter().find(|(_, to)| to.iter().all(|t| !left.contains_key(t))).map(|(from, _)| *from) {
        left.remove(free);
    }
    assert!(left.is_empty(), "import cycle among {:?}", left.keys());
}

#[test]
fn files_and_functions_keep_their_size() {
    let src = rust_files("src");
    let mut faults: Vec<String> = src.iter().flat_map(size_faults).collect();
    faults.extend(percentile_faults(&src));
    faults.extend(["tests", "benches"].iter().flat_map(|folder| rust_files(folder)).flat_map(|f| size_faults(&f)));
    assert_none(&faults);
}

#[test]
fn every_file_opens_with_its_contract() {
    let files = ["src", "tests", "benches"].iter().flat_map(|folder| rust_files(folder));
    assert_none(&files.flat_map(|f| opening_faults(&f)).collect::<Vec<_>>());
}

#[test]
fn no_unwrap_unsafe_or_stray_anyhow() {
    assert_none(&rust_files("src").iter().flat_map(word_faults).collect::<Vec<_>>());
}

#[test]
fn commit_subjects_are_short() {
    let log = Command::new("git").args(["log", "--format=%h %s"]).current_dir(root()).output();
    let Some(log) = log.ok().filter(|out| out.status.success()) else {
        println!("left out: commit subjects (no git history here)");
        return;
    };
    let log = String::from_utf8_lossy(&log.stdout);
    let subjects = log.lines().filter_map(|line| line.split_once(' '));
    let long: Vec<String> = subjects.filter(|(_, s)| s.chars().count() > SUBJECT_CHARS).map(|(hash, s)| format!("{hash}: {s}")).collect();
    assert!(long.is_empty(), "subjects over {SUBJECT_CHARS} characters:\n{}", long.join("\n"));
}

/// Each rule must be able to fail: a breach of each, and its innocent look-alike.
#[test]
fn tidy_sees_breaches_and_only_those() {
    let modules: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let long_body = "    let x = 1;\n".repeat(70);
    for (path, text, faults) in [
        ("src/decode/kpl.rs", "//! x\nuse crate::source::Record;", 1),
        ("src/decode/kpl.rs", "//! x\nuse crate::{event::{Event, Span}, position::ShardId};", 0),
        ("src/decode/kpl.rs", "//! x\nuse crate::{event::Event, rule, sink::Sink};", 2),
        ("src/decode/kpl.rs", "//! x\nfn f() { super::super::detect::g(); super::gzip::h() }", 1),
        ("src/decode.rs", "//! x\nuse super::detect;", 1),
        ("src/decode.rs", "//! x\n// crate::detect\nconst S: &str = \"crate::detect\"; const R: &str = r#\"a \"crate::detect\"#;", 0),
        ("src/decode.rs", "//! x\nfn f<'a>(c: char) -> bool { c == '\"' || c == '{' || c == '\\'' }\nuse crate::redact;", 0),
        ("src/decode.rs", "//! x\n#[cfg(test)]\nmod tests {\n    use crate::detect;\n    fn f() { g().unwrap() }\n}\nuse crate::rule;", 1),
        ("src/rule.rs", "//! x\nfn f() { g().unwrap(); }", 1),
        ("src/rule/tests.rs", "//! x\nfn f() { g().unwrap(); }", 0),
        ("src/rule.rs", "//! x\nfn f() { unsafe { g() } }", 1),
        ("src/rule.rs", "//! x\nuse anyhow::Result;", 1),
        ("src/cli.rs", "//! x\nuse anyhow::Result;\nuse crate::demo;", 0),
        ("src/rule.rs", "use std::fs;", 1),
        ("src/rule/mod.rs", "//! x", 1),
        ("src/unheard_of.rs", "//! x", 1),
        ("src/rule.rs", &format!("//! x\nfn long() {{\n{long_body}}}\nfn short() {{}}"), 1),
        ("src/rule.rs", &format!("//! x\n{}", "\n".repeat(800)), 1),
    ] {
        let file = file(path, text);
        let mut found = [size_faults(&file), opening_faults(&file), word_faults(&file)].concat();
        if !file.test {
            found.extend(arrow_faults(&file, &modules));
        }
        assert_eq!(found.len(), faults, "{path}\n{text}\n{found:?}");
    }
}
