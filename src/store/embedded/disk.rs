//! The disk under the database: opening it, what it says when it fails, and how
//! much room is left.
//!
//! redb reports a failure where it notices it, which may be long after the call
//! that failed, and afterwards only that there was one. What matters is told
//! here, where the call is made: was the disk full, and was it a flush that
//! failed? After a failed flush nobody can know what is on the disk, even when
//! the reason was a full one: the kernel may have dropped the pages.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

/// redb's default is 1 GiB; rows are read rarely and mostly while they are new.
const CACHE: usize = 16 << 20;

/// Given back to the file system when it is full: reopening the database writes.
const BALLAST: u64 = 16 << 20;

/// A file up to this size is checked page by page when it is opened, about
/// 1 ms for a MiB. For a larger one redb's own check after an unclean end must do.
const CHECKED_UPTO: u64 = 256 << 20;

/// Opens what the database is stored on.
pub(super) type OpenBackend = Box<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send>;

/// Tells how many bytes are free.
pub(super) type FreeBytes = Box<dyn Fn() -> io::Result<u64> + Send>;

/// The disk under a database.
pub(super) struct Disk {
    open: OpenBackend,
    free: FreeBytes,
    ballast: Option<PathBuf>,
    signs: Arc<Signs>,
}

/// What a backend's calls have shown.
#[derive(Debug, Default)]
pub(super) struct Signs {
    bytes: AtomicU64,
    full: AtomicBool,
    flush_failed: AtomicBool,
}

impl Signs {
    /// Bytes that the database occupies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether what failed was a write to a full disk, and nothing else.
    pub(super) fn only_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) && !self.flush_failed.load(Ordering::Relaxed)
    }

    fn note(&self, error: &io::Error) {
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            self.full.store(true, Ordering::Relaxed);
        }
    }
}

impl Disk {
    /// A file, with a ballast beside it.
    pub(super) fn file(file: PathBuf, ballast: PathBuf) -> Self {
        let directory = file.parent().unwrap_or(Path::new(".")).to_owned();
        Self {
            open: Box::new(move || {
                let backend = FileBackend::new(private(&file)?).map_err(io::Error::other)?;
                Ok(Box::new(backend))
            }),
            free: Box::new(move || {
                let space = rustix::fs::statvfs(&directory)?;
                Ok(space.f_bavail.saturating_mul(space.f_frsize))
            }),
            ballast: Some(ballast),
            signs: Arc::default(),
        }
    }

    /// Anything else.
    #[cfg(test)]
    pub(super) fn other(open: OpenBackend, free: FreeBytes) -> Self {
        Self { open, free, ballast: None, signs: Arc::default() }
    }

    /// What the calls have shown so far.
    pub(super) fn signs(&self) -> Arc<Signs> {
        self.signs.clone()
    }

    /// Opens the database, or makes it. A plain open believes what it reads, and
    /// redb may panic over a page that something else has written.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn database(&self) -> Result<Database, DatabaseError> {
        self.signs.full.store(false, Ordering::Relaxed);
        let backend = (self.open)()?;
        let bytes = backend.len()?;
        self.signs.bytes.store(bytes, Ordering::Relaxed);
        let backend = Watched { backend, signs: self.signs.clone() };
        let open = || {
            Database::builder()
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(0 < bytes && bytes <= CHECKED_UPTO)
                .create_with_backend(backend)
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_or_else(|_| {
            let text = "a page holds what the engine never wrote".to_owned();
            Err(DatabaseError::Storage(redb::StorageError::Corrupted(text)))
        })
    }

    /// Free bytes; `None` when the system does not tell.
    pub(super) fn free(&self) -> Option<u64> {
        (self.free)().ok()
    }

    /// Makes the ballast if it is not there and the disk has room for it beside
    /// `min_free`. Without one a full disk only takes longer to get out of.
    pub(super) fn lay_ballast(&self, min_free: u64) {
        let Some(path) = &self.ballast else { return };
        let there = fs::metadata(path).is_ok_and(|found| found.len() == BALLAST);
        let room = self.free().is_some_and(|free| free >= min_free.saturating_add(BALLAST));
        if !there && room && write_zeros(path).is_err() {
            self.drop_ballast();
        }
    }

    /// Gives the ballast's room back.
    pub(super) fn drop_ballast(&self) {
        if let Some(path) = &self.ballast {
            // It may not be there, and nothing else can be done on a full disk.
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens a file that only its owner reads, or makes it.
///
/// # Errors
/// The system's.
pub(super) fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Written and not only made long: a file with a hole holds no room.
fn write_zeros(path: &Path) -> io::Result<()> {
    let mut file = private(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..BALLAST / (1 << 20) {
        file.write_all(&zeros)?;
    }
    file.set_len(BALLAST)
}

/// A backend whose failures leave signs.
struct Watched {
    backend: Box<dyn StorageBackend>,
    signs: Arc<Signs>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

/// Locks are left out: the directory's lock file keeps other processes away.
impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len).inspect_err(|error| self.signs.note(error))?;
        self.signs.bytes.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data().inspect_err(|_| {
            self.signs.flush_failed.store(true, Ordering::Relaxed);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data).inspect_err(|error| self.signs.note(error))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}
