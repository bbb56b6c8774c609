//! Files: ours, another's, damaged, newer, in use.

use std::fs;

use super::*;
use crate::store::tests::{alert, check_store};
use crate::{alert::Level, store::outbox_row};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn refused(path: &Path) -> String {
    let before = fs::read(path).unwrap();
    let error = EmbeddedStore::open(path).err().expect("refused").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(fs::read(path).unwrap() == before, "the file was changed: {error}");
    error
}

#[test]
fn keeps_rows_across_openings() {
    let folder = folder();
    let path = folder.path().join("state.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    check_store(&store);
    let (alerts, positions) = (store.outbox_list(9).unwrap(), store.positions().unwrap());
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!((store.outbox_list(9).unwrap(), store.positions().unwrap()), (alerts, positions));
    assert!(store.bytes() > 0);
}

#[test]
fn a_temporary_store_leaves_no_file() {
    let folder = folder();
    let store = EmbeddedStore::temporary(folder.path()).unwrap();
    check_store(&store);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_second_opening_is_refused() {
    let folder = folder();
    let path = folder.path().join("state.redb");
    let _store = EmbeddedStore::open(&path).unwrap();
    assert!(refused(&path).contains("another process has this state file open"));
}

#[test]
fn foreign_files_are_refused() {
    let folder = folder();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "remember the milk").unwrap();
    assert!(refused(&text).contains("not a Trailwarden state file"));
    let other = folder.path().join("other.redb");
    let database = Database::create(&other).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(&other).err().expect("refused").to_string();
    assert!(error.contains("not a Trailwarden state file"), "{error}");
    let kept = Database::open(&other).unwrap();
    assert_eq!(kept.begin_read().unwrap().open_table(TableDefinition::<u64, u64>::new("meta")).unwrap().get(1).unwrap().unwrap().value(), 2);
}

#[test]
fn a_newer_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("state.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let row = [&KIND[..], &9u32.to_be_bytes()].concat();
    store.commit(vec![Change::Put { table: Table::Meta, key: SCHEMA_ROW.into(), value: row.into() }]).unwrap();
    drop(store);
    let error = EmbeddedStore::open(&path).err().expect("refused").to_string();
    assert!(error.contains("newer Trailwarden (schema 9, this one knows 1)"), "{error}");
}

#[test]
fn damage_is_told() {
    let folder = folder();
    let path = folder.path().join("state.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    for n in 0..2000u128 {
        store.commit_quickly(outbox_row(&alert(n, Level::High, n as i64)).unwrap());
    }
    store.commit(vec![]).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.redb");
    // Cut short.
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&damaged).contains("damaged"));
    // A page overwritten with another's bytes, somewhere in the middle of the data.
    let text = whole.windows(7).rposition(|w| w == b"summary").unwrap();
    let mut bytes = whole.clone();
    bytes[text - 40..text + 40].fill(0x5a);
    fs::write(&damaged, &bytes).unwrap();
    let error = EmbeddedStore::open(&damaged).err().expect("refused").to_string();
    assert!(error.contains("damaged"), "{error}");
}

impl EmbeddedStore {
    /// Without a sync: only to fill a file fast.
    fn commit_quickly(&self, change: Change) {
        let mut write = self.database.begin_write().unwrap();
        write.set_durability(Durability::None).unwrap();
        let Change::Put { table, key, value } = change else { return };
        write.open_table(definition(table)).unwrap().insert(&*key, &*value).unwrap();
        write.commit().unwrap();
    }
}
