//! Rows in one redb file: for the daemon.
//!
//! In: batches. Out: rows in key order. Invariant: `commit` returns once the batch is on disk; a file that isn't ours, is damaged
//! or newer is refused and left as it is.

use std::{
    fs::File,
    io::Read,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError, TransactionError, WriteTransaction,
};

use super::{Change, Guard, Result, Store, StoreError, Table, Visit};

/// The layout of the rows. A change of it comes with a step in `migrate`.
const SCHEMA: u32 = 1;
/// In `Table::Meta`: big-endian schema version behind the file's kind.
const SCHEMA_ROW: &[u8] = b"schema";
const KIND: &[u8; 11] = b"trailwarden";
/// The first bytes of every redb file.
const MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1a, 0x0a, 0xa9, 0x0d, 0x0a];
/// Pages that redb keeps in memory.
const CACHE_BYTES: usize = 32 << 20;

/// A temporary store syncs once in so many commits.
const TEMPORARY_SYNC: u64 = 64;

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

pub struct EmbeddedStore {
    path: String,
    // Tables as of the last commit; opened once a commit instead of once a read. Dropped before the database.
    view: RwLock<Arc<Vec<Rows>>>,
    database: Database,
    temporary: bool,
    /// Commits so far; only a temporary store counts them.
    commits: AtomicU64,
    file: PathBuf,
}

impl EmbeddedStore {
    /// Opens the file or makes it. Checks all of it, which reads it once.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        refuse_foreign(path, &name)?;
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
            database.map_err(|e| database_error(&name, e)).and_then(|database| Self::prepare(database, &name, path, false))
        }));
        // redb panics on some damage; the file is as it was, since nothing of it was committed.
        opened.unwrap_or_else(|_| Err(StoreError::Damaged { path: name, detail: "its pages contradict each other".into() }))
    }

    /// A file that is gone with the process: where `scan` puts what doesn't fit in memory. Nothing of it is synced.
    pub fn temporary(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("trailwarden-{}-{:016x}.redb", std::process::id(), unique()));
        let name = path.display().to_string();
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(|e| io_error(&name, &e))?;
        // Unlinked at once: the space is given back however the process ends.
        std::fs::remove_file(&path).map_err(|e| io_error(&name, &e))?;
        let backend = redb::backends::FileBackend::new(file).map_err(|e| database_error(&name, e))?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(|e| database_error(&name, e))?;
        Self::prepare(database, &name, &path, true)
    }

    fn prepare(database: Database, name: &str, file: &Path, temporary: bool) -> Result<Self> {
        let write = database.begin_write().map_err(|e| transaction_error(name, e))?;
        let ours = write.list_tables().map_err(|e| storage_error(name, e))?.count() == 0 || has_schema(&write, name)?;
        if !ours {
            return Err(StoreError::Foreign { path: name.into() });
        }
        migrate(&write, name)?;
        write.commit().map_err(|e| commit_error(name, e))?;
        let view = RwLock::new(view(&database, name)?);
        Ok(Self { path: name.into(), view, database, temporary, commits: AtomicU64::new(0), file: file.to_owned() })
    }

    fn tables(&self) -> Arc<Vec<Rows>> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        let mut write = self.database.begin_write().map_err(|e| transaction_error(&self.path, e))?;
        // Freed pages are only used again after a commit that is on disk.
        if self.temporary && !self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(TEMPORARY_SYNC) {
            write.set_durability(Durability::None).map_err(|e| io_error(&self.path, &e))?;
        }
        for guard in guards {
            let rows = write.open_table(definition(guard.table)).map_err(|e| table_error(&self.path, e))?;
            let found = rows.get(&*guard.key).map_err(|e| storage_error(&self.path, e))?;
            if found.as_ref().map(|row| row.value()) != guard.value.as_deref() {
                return Ok(false);
            }
        }
        for table in Table::ALL {
            let mut of_table = changes.iter().filter(|c| c.table() == table).peekable();
            if of_table.peek().is_none() {
                continue;
            }
            let mut rows = write.open_table(definition(table)).map_err(|e| table_error(&self.path, e))?;
            for change in of_table {
                match change {
                    Change::Put { key, value, .. } => rows.insert(&**key, &**value).map(drop),
                    Change::Delete { key, .. } => rows.remove(&**key).map(drop),
                }
                .map_err(|e| storage_error(&self.path, e))?;
            }
        }
        write.commit().map_err(|e| commit_error(&self.path, e))?;
        Ok(true)
    }
}

impl Store for EmbeddedStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.tables()[table as usize].get(key).map_err(|e| storage_error(&self.path, e))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], visit: Visit) -> Result<()> {
        let tables = self.tables();
        let rows = tables[table as usize].range(prefix.max(from)..).map_err(|e| storage_error(&self.path, e))?;
        for row in rows {
            let (key, value) = row.map_err(|e| storage_error(&self.path, e))?;
            if !key.value().starts_with(prefix) || visit(key.value(), value.value()) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: Vec<Change>) -> Result<()> {
        self.commit_if(&[], changes).map(|_| ())
    }

    fn commit_if(&self, guards: &[Guard], changes: Vec<Change>) -> Result<bool> {
        if !self.write(guards, changes)? {
            return Ok(false);
        }
        let fresh = view(&self.database, &self.path)?;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |meta| meta.len())
    }
}

fn view(database: &Database, name: &str) -> Result<Arc<Vec<Rows>>> {
    let read = database.begin_read().map_err(|e| transaction_error(name, e))?;
    let open = |table| read.open_table(definition(table)).map_err(|e| table_error(name, e));
    Table::ALL.into_iter().map(open).collect::<Result<Vec<_>>>().map(Arc::new)
}

/// Looks before redb does: it would take an unknown file for a damaged one.
fn refuse_foreign(path: &Path, name: &str) -> Result<()> {
    let mut head = [0; MAGIC.len()];
    match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error(name, &e)),
        Ok(mut file) => {
            let length = file.metadata().map_err(|e| io_error(name, &e))?.len();
            if length == 0 {
                return Ok(());
            }
            if file.read_exact(&mut head).is_err() || head != MAGIC {
                return Err(StoreError::Foreign { path: name.into() });
            }
        }
    }
    Ok(())
}

fn has_schema(write: &WriteTransaction, name: &str) -> Result<bool> {
    let mut tables = write.list_tables().map_err(|e| storage_error(name, e))?;
    Ok(tables.any(|t| redb::TableHandle::name(&t) == Table::Meta.name()) && schema(write, name)?.is_some())
}

fn schema(write: &WriteTransaction, name: &str) -> Result<Option<u32>> {
    // Another program's table of this name may hold other types.
    let Ok(meta) = write.open_table(definition(Table::Meta)) else { return Ok(None) };
    let row = meta.get(SCHEMA_ROW).map_err(|e| storage_error(name, e))?;
    Ok(row.and_then(|row| Some(u32::from_be_bytes(row.value().strip_prefix(KIND)?.try_into().ok()?))))
}

/// Brings an older file to today's layout, step by step, in the caller's transaction.
fn migrate(write: &WriteTransaction, name: &str) -> Result<()> {
    let found = schema(write, name)?.unwrap_or(0);
    if found > SCHEMA {
        return Err(StoreError::Newer { path: name.into(), found, known: SCHEMA });
    }
    for table in Table::ALL {
        write.open_table(definition(table)).map_err(|e| table_error(name, e))?;
    }
    if found < SCHEMA {
        let mut meta = write.open_table(definition(Table::Meta)).map_err(|e| table_error(name, e))?;
        let row = [&KIND[..], &SCHEMA.to_be_bytes()].concat();
        meta.insert(SCHEMA_ROW, row.as_slice()).map_err(|e| storage_error(name, e))?;
    }
    Ok(())
}

/// A number that another `temporary` of this process or host won't have.
fn unique() -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::RandomState::default().hash_one(std::time::Instant::now())
}

fn io_error(path: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Io { path: path.into(), detail: error.to_string() }
}

fn storage_error(path: &str, error: StorageError) -> StoreError {
    match error {
        StorageError::Corrupted(detail) => StoreError::Damaged { path: path.into(), detail },
        StorageError::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => StoreError::Full { path: path.into() },
        StorageError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            StoreError::Damaged { path: path.into(), detail: "it is cut short".into() }
        }
        other => io_error(path, &other),
    }
}

fn database_error(path: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::Locked { path: path.into() },
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Damaged { path: path.into(), detail: e.to_string() }
        }
        DatabaseError::Storage(e) => storage_error(path, e),
        DatabaseError::UpgradeRequired(version) => {
            StoreError::Damaged { path: path.into(), detail: format!("redb file format {version} is too old") }
        }
        DatabaseError::RepairAborted => StoreError::Damaged { path: path.into(), detail: "it can't be repaired".into() },
        other => io_error(path, &other),
    }
}

fn transaction_error(path: &str, error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(e) => storage_error(path, e),
        other => io_error(path, &other),
    }
}

fn table_error(path: &str, error: TableError) -> StoreError {
    match error {
        TableError::Storage(e) => storage_error(path, e),
        other => StoreError::Damaged { path: path.into(), detail: other.to_string() },
    }
}

fn commit_error(path: &str, error: CommitError) -> StoreError {
    match error {
        CommitError::Storage(e) => storage_error(path, e),
        other => io_error(path, &other),
    }
}

#[cfg(test)]
mod tests;
