//! Promises 1 and 10 on the embedded store: kill -9, a full disk, a failing fsync.
//!
//! In: a process of its own that reads a stream of deliveries, commits, and delivers its outbox to a file. Out: after the last
//! restart the delivered ids are the oracle's. Invariant: the child learns nothing from the parent but the store's path.

#[path = "state/drive.rs"]
mod drive;
#[path = "state/oracle.rs"]
mod oracle;
#[path = "state/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use trailwarden::{
    rule::ast::{Comparison, CorrelationKind, State},
    store::{
        EmbeddedStore, Result, Store,
        keeper::{Keeper, Limits, Mode},
    },
};
use world::{Case, Rng, at, correlation, rule};

/// Set for the child: the folder of its store and of what it delivers.
const FOLDER: &str = "TRAILWARDEN_STATE_CHILD";
const EXIT_STORE: i32 = 3;

/// The same for parent and child: all that the child does follows from it.
fn case() -> Case {
    let mut rules: Vec<_> = ["r0", "r1", "r2", "s0", "s1"].into_iter().map(rule).collect();
    let g = || vec![at("g".to_owned())];
    rules[3].meta.ext.state = Some(at(State::NewValue { fields: vec![at("v".into())], group_by: g(), memory_ms: 3_600_000, learning_ms: 60_000 }));
    rules[4].meta.ext.state = Some(at(State::ValueDrop { field: at("n".into()), group_by: g(), timespan_ms: 600_000 }));
    let mut count = correlation("count", CorrelationKind::EventCount, &["r0", "r1"], &["g", "h"], 600_000);
    count.bounds = vec![(Comparison::Gte, 4.0)];
    let mut rare = correlation("rare", CorrelationKind::EventCount, &["r2"], &["g"], 60_000);
    rare.bounds = vec![(Comparison::Lt, 2.0)];
    // Every match of r2 alerts too.
    rare.generate = true;
    let order = correlation("order", CorrelationKind::TemporalOrdered, &["r0", "r1", "r2"], &["h"], 600_000);
    let mut chain = correlation("chain", CorrelationKind::EventCount, &["order"], &[], 7_200_000);
    chain.bounds = vec![(Comparison::Gte, 3.0)];
    Case::of(&mut Rng(20_260_101), rules, vec![count, rare, order, chain], 1_200)
}

fn outbox_to_file(store: &dyn Store, folder: &Path) -> Result<()> {
    let mut file = fs::File::options().append(true).create(true).open(folder.join("delivered")).unwrap();
    loop {
        let due = store.outbox_list(20)?;
        if due.is_empty() {
            return Ok(());
        }
        let lines: String = due.iter().map(|(_, alert)| format!("{} {}\n", alert.id, alert.incident)).collect();
        file.write_all(lines.as_bytes()).unwrap();
        store.outbox_remove(&due.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
    }
}

fn work(folder: &Path) -> Result<()> {
    let case = case();
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&folder.join("store/state.redb"))?);
    let plan = drive::plan(&case);
    let mut reader = drive::Reader::new(&case);
    reader.resume(&*store);
    let mode = Mode::Live { start_ms: case.start_ms };
    let mut keeper = Keeper::open(plan.clone(), store.clone(), mode, Limits::default(), true)?;
    let now_ms = case.deliveries.iter().map(|d| d.arrival_ms).max().unwrap();
    // Shards take turns by position, so that every start goes on where the last commit stood.
    while let Some(shard) = (0..case.shards).filter(|s| reader.at[*s] < reader.shards[*s].len()).min_by_key(|s| reader.at[*s]) {
        for _ in 0..5 {
            if let Some((event, arrival_ms)) = reader.shards[shard].get(reader.at[shard]) {
                drive::offer(&mut keeper, &case, &plan, event, *arrival_ms);
                reader.at[shard] += 1;
            }
        }
        keeper.advance(reader.frontier(now_ms))?;
        keeper.commit(&reader.positions())?;
        outbox_to_file(&*store, folder)?;
    }
    keeper.advance(drive::end_ms(&case))?;
    keeper.commit(&reader.positions())?;
    outbox_to_file(&*store, folder)
}

/// Not a test by itself: what the tests start as another process.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    if let Err(error) = work(Path::new(&folder)) {
        eprintln!("error: {error}");
        std::process::exit(EXIT_STORE);
    }
}

fn command(folder: &Path, before: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(&program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&program);
            command
        }
    };
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn finish(folder: &Path, before: &[&str]) -> Output {
    command(folder, before).output().unwrap()
}

/// What was delivered is what the oracle asks for, each id in one incident.
fn check_delivered(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join("delivered")).unwrap();
    let mut incidents: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let (id, incident) = line.split_once(' ').unwrap();
        assert_eq!(*incidents.entry(id).or_insert(incident), incident, "{id} is in two incidents");
    }
    let expected = oracle::ids(&case());
    let missing: Vec<_> = expected.iter().filter(|(id, _)| !incidents.contains_key(id.as_str())).collect();
    let unexpected: Vec<_> = incidents.keys().filter(|id| !expected.contains_key(**id)).collect();
    assert!(missing.is_empty() && unexpected.is_empty(), "missing {missing:?}, unexpected {unexpected:?}");
    expected.len()
}

fn kill(child: &mut Child) {
    // Child::kill is SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn kill_9_loses_and_repeats_nothing() {
    let kills: u64 = std::env::var("TRAILWARDEN_KILLS").map_or(25, |n| n.parse().unwrap());
    let folder = folder();
    let mut rng = Rng(std::process::id().into());
    println!("random from {}", rng.0);
    let (mut done, mut rounds, mut ids) = (0, 0, 0);
    while done < kills {
        // The stream was read to its end: check, and begin anew with the next kills.
        let mut child = command(folder.path(), &[]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 + rng.below(400)));
        if child.try_wait().unwrap().is_none() {
            kill(&mut child);
            done += 1;
            continue;
        }
        assert!(child.wait().unwrap().success());
        ids = check_delivered(folder.path());
        rounds += 1;
        fs::remove_file(folder.path().join("delivered")).unwrap();
        fs::remove_file(folder.path().join("store/state.redb")).unwrap();
    }
    let last = finish(folder.path(), &[]);
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    ids = check_delivered(folder.path()).max(ids);
    println!("{done} kills over {} streams, {ids} ids each, none lost, none under two ids", rounds + 1);
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("store")).unwrap();
    folder
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Unmounts what it mounted.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn mount(folder: &Path, options: &str) -> bool {
    Command::new("mount").args(["-t", "tmpfs", "-o", options, "trailwarden"]).arg(folder).output().is_ok_and(|o| o.status.success())
}

#[test]
fn a_full_disk_stops_and_resumes() {
    let folder = folder();
    // Only the store is on the small disk.
    let store = folder.path().join("store");
    if !mount(&store, "size=700k") {
        println!("left out: full disk (tmpfs can't be mounted here)");
        return;
    }
    let _mount = Mount(store.clone());
    let full = finish(folder.path(), &[]);
    let text = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(EXIT_STORE), "{text}");
    assert!(text.contains("no space left for the state"), "{text}");
    let again = finish(folder.path(), &[]);
    assert_eq!(again.status.code(), Some(EXIT_STORE), "still full: {}", String::from_utf8_lossy(&again.stderr));
    assert!(mount(&store, "remount,size=200m"), "remount");
    let resumed = finish(folder.path(), &[]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    println!("{} ids after a full disk, none lost", check_delivered(folder.path()));
}

#[test]
fn a_failing_fsync_stops_and_resumes() {
    if !has("strace") {
        println!("left out: failing fsync (no strace)");
        return;
    }
    let folder = folder();
    let log = folder.path().join("strace");
    for first in ["3", "20", "57"] {
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={first}+");
        let failed = finish(folder.path(), &["strace", "-f", "-o", log.to_str().unwrap(), "-e", "trace=fsync,fdatasync", "-e", &inject]);
        let text = String::from_utf8_lossy(&failed.stderr).into_owned();
        if text.contains("ptrace") && !text.contains("error:") {
            println!("left out: failing fsync (strace may not trace here)");
            return;
        }
        assert_eq!(failed.status.code(), Some(EXIT_STORE), "from sync {first} on: {text}");
        assert!(text.contains("nothing of the last batch counts as kept"), "{text}");
    }
    let resumed = finish(folder.path(), &[]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    println!("{} ids after failing syncs, none lost", check_delivered(folder.path()));
}
