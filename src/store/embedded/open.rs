//! Opening the store: the directory, the lock, and whose file it is.
//!
//! An operator reads these errors at the worst of times, so each names the path
//! and what to do. A file that is not ours, or not whole, is refused and never
//! repaired or made anew behind anybody's back: it may hold what was accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError,
    TableHandle, WriteTransaction,
};

use super::commit::Writer;
use super::disk::{Disk, private};
use super::keys::{self, Keys};
use super::retention::Retention;
use super::tables::{
    self, ACTIONS, DEAD, DEVICES, EVENTS, FILTERS, GONE, GONE_KEYS, HELD, Hour, INTENTS,
    KEPT_MESSAGES, KEPT_OUT, META, NOTES, OPEN, SET_ASIDE, meta,
};
use super::{Clock, Embedded, Fault, Inbox, OnFlushed, Shared};
use crate::clock::Utc;
use crate::store::{Settings, Start};

const FILE: &str = "pushyard.redb";
const LOCK: &str = "lock";
const BALLAST: &str = "ballast";

/// What a file of ours says first.
const FORMAT: &[u8] = b"pushyard store";

/// The layout of the tables; records have a version of their own.
const VERSION: u32 = 1;

/// The first bytes of any file of the engine (its documentation, "File format").
const ENGINE_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Unclean ends that are remembered: more than the three that make a difference
/// (docs/semantics.md, "Poison").
const UNCLEAN_ENDS: usize = 16;

/// Why the store cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The directory is not there and cannot be made.
    NoDirectory(PathBuf, io::Error),
    /// Nothing can be written in the directory.
    NotWritable(PathBuf, io::Error),
    /// Another process has it open; its id, if it wrote one.
    Locked(PathBuf, Option<u32>),
    /// The file was written by something else.
    NotOurs(PathBuf),
    /// The file ends too early.
    Truncated(PathBuf, String),
    /// The file's content is not what was written.
    Damaged(PathBuf, String),
    /// The file was written by a later version: its number.
    Newer(PathBuf, u32),
    /// The disk failed.
    Io(PathBuf, String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory(path, error) => write!(
                f,
                "cannot create the data directory {}: {error}; create it, or set `path` in [store]",
                path.display()
            ),
            Self::NotWritable(path, error) => write!(
                f,
                "cannot write {}: {error}; give the user that runs pushyard the data directory \
                 and its files",
                path.display()
            ),
            Self::Locked(path, pid) => {
                write!(f, "another process")?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                write!(
                    f,
                    " has the data directory {} open; stop it, or set another `path` in [store]",
                    path.display()
                )
            }
            Self::NotOurs(path) => write!(
                f,
                "{} was not written by pushyard; move it away, or set another `path` in [store]",
                path.display()
            ),
            Self::Truncated(path, text) => write!(
                f,
                "{} has lost its end ({text}); restore it from a backup, or move it away to \
                 begin with an empty store",
                path.display()
            ),
            Self::Damaged(path, text) => write!(
                f,
                "{} is damaged ({text}); restore it from a backup, or move it away to begin with \
                 an empty store",
                path.display()
            ),
            Self::Newer(path, version) => write!(
                f,
                "{} was written by a later version of pushyard (layout {version}, this one knows \
                 {VERSION}); run that version",
                path.display()
            ),
            Self::Io(path, text) => {
                write!(f, "cannot read {}: {text}; look at the disk", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens the store in `settings.path`, or makes it, and starts its commit thread.
/// `clock` gives the time until the end; what it says now is when this process
/// began. `on_flushed` is called from the commit thread.
///
/// # Errors
/// [`OpenError`]; nothing has been changed then, beside the directory and its lock.
pub fn open(
    settings: &Settings,
    clock: Clock,
    on_flushed: OnFlushed,
) -> Result<(Arc<Embedded>, Start), OpenError> {
    let lock = lock_directory(&settings.path)?;
    let file = settings.path.join(FILE);
    check_file(&file)?;
    let disk = Disk::file(file.clone(), settings.path.join(BALLAST));
    open_on(disk, &file, Some(lock), settings, clock, on_flushed)
}

/// Opens it on any disk; errors name `file`.
pub(super) fn open_on(
    disk: Disk,
    file: &Path,
    lock: Option<File>,
    settings: &Settings,
    clock: Clock,
    on_flushed: OnFlushed,
) -> Result<(Arc<Embedded>, Start), OpenError> {
    let now = clock().utc;
    let mut loaded = load(&disk, file, settings, now);
    if loaded.is_err() && disk.signs().only_full() {
        // This is the other moment for which there is a ballast.
        disk.drop_ballast();
        loaded = load(&disk, file, settings, now);
    }
    let (db, start, found, keys) = loaded?;
    let retention =
        Retention::new(settings.clone(), found.hours, found.kept_bytes, found.drained_upto);
    let shared = Arc::new(Shared {
        inbox: Mutex::new(Inbox::default()),
        arrived: Condvar::new(),
        db: RwLock::new(Some(db)),
        keys: Mutex::new(keys),
        server_key: found.server_key,
        clock,
        signs: disk.signs(),
        health: AtomicU8::new(0),
        commits: AtomicU64::new(0),
        rows: AtomicU64::new(0),
        dead_letters: AtomicU64::new(found.dead_letters),
        events: AtomicU64::new(found.events),
        set_aside: AtomicU64::new(start.set_aside),
        commit_times: Mutex::default(),
    });
    let mut writer = Writer::new(shared.clone(), settings.clone(), disk, retention, on_flushed);
    writer.look_at_room();
    let writer = std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| OpenError::Io(file.to_owned(), error.to_string()))?;
    Ok((Arc::new(Embedded { shared, writer: Mutex::new(Some(writer)), _lock: lock }), start))
}

fn load(
    disk: &Disk,
    file: &Path,
    settings: &Settings,
    now: Utc,
) -> Result<(Database, Start, Found, Keys), OpenError> {
    let failed = |Fault(text): Fault| OpenError::Io(file.to_owned(), text);
    let db = disk.database().map_err(|error| refused(file, &error))?;
    check_format(&db, file)?;
    let (start, found) = begin(&db, now).map_err(failed)?;
    let keys = keys::load(&db, settings.max_idempotency_keys).map_err(failed)?;
    Ok((db, start, found, keys))
}

/// Makes the directory and keeps other processes out of it.
fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| OpenError::NoDirectory(directory.to_owned(), error))?;
    let path = directory.join(LOCK);
    let not_writable = |error| OpenError::NotWritable(path.clone(), error);
    let mut file = private(&path).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Whose it is helps, but is not what matters.
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::Locked(directory.to_owned(), pid.trim().parse().ok()));
        }
        Err(TryLockError::Error(error)) => return Err(not_writable(error)),
    }
    // A full disk takes no pid, and that is no reason not to start.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// What can be said of the file before the engine looks at it.
fn check_file(path: &Path) -> Result<(), OpenError> {
    let new = !path.exists();
    let file = private(path).map_err(|error| OpenError::NotWritable(path.to_owned(), error))?;
    if new {
        // A flush of the file alone need not make its name durable (fsync(2)).
        for directory in path.ancestors().skip(1).take(2) {
            // Where a directory cannot be flushed, nothing can be done about it.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
    }
    let io = |error: io::Error| OpenError::Io(path.to_owned(), error.to_string());
    let mut head = Vec::new();
    file.take(ENGINE_MAGIC.len() as u64).read_to_end(&mut head).map_err(io)?;
    if head.is_empty() || head == ENGINE_MAGIC {
        return Ok(());
    }
    if ENGINE_MAGIC.starts_with(&head) {
        let bytes = fs::metadata(path).map_err(io)?.len();
        return Err(OpenError::Truncated(path.to_owned(), format!("{bytes} bytes are left")));
    }
    Err(OpenError::NotOurs(path.to_owned()))
}

/// The engine has refused the file. That it is too short the engine says in words
/// only; so the file itself is asked.
fn refused(path: &Path, error: &DatabaseError) -> OpenError {
    let text = error.to_string();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Locked(path.to_owned(), None)
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            OpenError::Truncated(path.to_owned(), text)
        }
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData =>
        {
            OpenError::NotOurs(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Corrupted(_)) => match missing_bytes(path) {
            Some(missing) => {
                OpenError::Truncated(path.to_owned(), format!("{missing} bytes are missing"))
            }
            None => OpenError::Damaged(path.to_owned(), text),
        },
        _ => OpenError::Io(path.to_owned(), text),
    }
}

/// What the file lacks to be as long as its head says (the engine's design, "Database
/// header": after magic number, flags and padding, five little-endian u32).
fn missing_bytes(path: &Path) -> Option<u64> {
    let mut head = [0; 32];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    let field = |at: usize| Some(u64::from(number(head.get(at..at + 4)?)?));
    let (page, region_head, region_most) = (field(12)?, field(16)?, field(20)?);
    let (full_regions, trailing) = (field(24)?, field(28)?);
    let trailing = if trailing > 0 { region_head + trailing } else { 0 };
    let regions = full_regions.checked_mul(region_head + region_most)?;
    let length = regions.checked_add(trailing + 1)?.checked_mul(page)?;
    let there = fs::metadata(path).ok()?.len();
    length.checked_sub(there).filter(|missing| *missing > 0)
}

/// Whether the tables are ours. A file without any is new.
fn check_format(db: &Database, path: &Path) -> Result<(), OpenError> {
    let damaged = |text: String| OpenError::Damaged(path.to_owned(), text);
    let head = read_head(db).map_err(|Fault(text)| damaged(text))?;
    match (head.format.as_deref(), head.version) {
        (None, None) if head.tables == 0 => Ok(()),
        (Some(FORMAT), Some(VERSION)) => Ok(()),
        (Some(FORMAT), Some(later)) if later > VERSION => {
            Err(OpenError::Newer(path.to_owned(), later))
        }
        (Some(FORMAT), other) => Err(damaged(format!("layout {other:?}"))),
        (Some(_) | None, _) => Err(OpenError::NotOurs(path.to_owned())),
    }
}

/// What a file says of itself.
#[derive(Default)]
struct Head {
    format: Option<Vec<u8>>,
    version: Option<u32>,
    tables: usize,
}

fn read_head(db: &Database) -> Result<Head, Fault> {
    let txn = db.begin_read()?;
    let tables = txn.list_tables()?.count() + txn.list_multimap_tables()?.count();
    let Ok(meta) = txn.open_table(META) else { return Ok(Head { tables, ..Head::default() }) };
    Ok(Head {
        format: meta.get(meta::FORMAT)?.map(|row| row.value().to_vec()),
        version: meta.get(meta::VERSION)?.and_then(|row| number(row.value())),
        tables,
    })
}

/// What is found in the file and is the store's own affair.
struct Found {
    server_key: [u8; 32],
    hours: BTreeMap<Hour, u64>,
    kept_bytes: u64,
    drained_upto: u128,
    dead_letters: u64,
    events: u64,
}

/// Reads what the last process has left and notes that this one has begun.
fn begin(db: &Database, now: Utc) -> Result<(Start, Found), Fault> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    make_tables(&txn)?;
    let start = begin_meta(&txn, now)?;
    let found = read_found(&txn)?;
    txn.commit()?;
    Ok((start, found))
}

/// All tables but those of hours and runs are always there.
fn make_tables(txn: &WriteTransaction) -> Result<(), Fault> {
    txn.open_table(OPEN)?;
    txn.open_table(INTENTS)?;
    txn.open_table(DEAD)?;
    txn.open_table(EVENTS)?;
    txn.open_table(ACTIONS)?;
    txn.open_table(KEPT_MESSAGES)?;
    txn.open_table(KEPT_OUT)?;
    txn.open_table(SET_ASIDE)?;
    txn.open_table(NOTES)?;
    txn.open_table(DEVICES)?;
    txn.open_table(HELD)?;
    txn.open_table(GONE)?;
    txn.open_table(GONE_KEYS)?;
    txn.open_table(FILTERS)?;
    Ok(())
}

fn begin_meta(txn: &WriteTransaction, now: Utc) -> Result<Start, Fault> {
    let mut table = txn.open_table(META)?;
    let new = table.get(meta::FORMAT)?.is_none();
    if new {
        table.insert(meta::FORMAT, FORMAT)?;
        table.insert(meta::VERSION, &VERSION.to_le_bytes()[..])?;
        table.insert(meta::SERVER_KEY, &rand::random::<[u8; 32]>()[..])?;
    }
    let clean = new || table.get(meta::CLEAN)?.is_some_and(|row| row.value() == [1]);
    let last_seen =
        table.get(meta::LAST_SEEN)?.and_then(|row| utc(row.value())).unwrap_or_default();
    let mut unclean_ends: Vec<Utc> = match table.get(meta::UNCLEAN_ENDS)? {
        Some(row) => row.value().chunks(8).filter_map(utc).collect(),
        None => Vec::new(),
    };
    if !clean {
        unclean_ends.push(last_seen);
        unclean_ends.drain(..unclean_ends.len().saturating_sub(UNCLEAN_ENDS));
        let row: Vec<u8> = unclean_ends.iter().flat_map(|at| at.ms().to_le_bytes()).collect();
        table.insert(meta::UNCLEAN_ENDS, &*row)?;
    }
    table.insert(meta::CLEAN, &[0][..])?;
    table.insert(meta::LAST_SEEN, &now.max(last_seen).ms().to_le_bytes()[..])?;
    let mut notes = Vec::new();
    for row in txn.open_table(NOTES)?.range::<&str>(..)? {
        let (name, value) = row?;
        notes.push((name.value().to_owned(), value.value().to_vec()));
    }
    let set_aside = txn.open_table(SET_ASIDE)?.len()?;
    Ok(Start { clean, last_seen, unclean_ends, notes, set_aside })
}

fn read_found(txn: &WriteTransaction) -> Result<Found, Fault> {
    let meta = txn.open_table(META)?;
    let server_key = meta.get(meta::SERVER_KEY)?.and_then(|row| row.value().try_into().ok());
    let server_key =
        server_key.ok_or_else(|| Fault("the secret for receipts is missing".to_owned()))?;
    let drained_upto = meta
        .get(meta::DRAINED_UPTO)?
        .and_then(|row| Some(u128::from_le_bytes(row.value().try_into().ok()?)))
        .unwrap_or(0);
    let (noted, kept_bytes) = meta
        .get(meta::BYTES)?
        .and_then(|row| Retention::decode_bytes(row.value()))
        .unwrap_or_default();
    let mut hours = BTreeMap::new();
    for table in txn.list_tables()? {
        if let Some(hour) = tables::hour_of_name(table.name()) {
            hours.insert(hour, noted.get(&hour).copied().unwrap_or(0));
        }
    }
    let dead_letters = txn.open_table(DEAD)?.len()?;
    let events = txn.open_table(EVENTS)?.len()?;
    Ok(Found { server_key, hours, kept_bytes, drained_upto, dead_letters, events })
}

fn utc(bytes: &[u8]) -> Option<Utc> {
    Some(Utc::from_ms(u64::from_le_bytes(bytes.try_into().ok()?)))
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
