//! Where the configuration and its secrets are read from: handed in, so that
//! tests need neither an environment nor files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No configuration, key or certificate is larger; a device file never ends.
const LARGEST: u64 = 16 << 20;

/// Reads what a configuration refers to.
pub trait Sources {
    /// An environment variable; `None` when it is not set, or not UTF-8.
    fn env(&self, name: &str) -> Option<String>;

    /// A whole file.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The process's environment and file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSources;

impl Sources for SystemSources {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
        }
        Ok(bytes)
    }
}

/// Why a file cannot be read, and what to do, as the end of a sentence that
/// begins with the file.
pub(super) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "does not exist; relative paths begin at the configuration file".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a directory; name a file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "may not be read by this user; change its owner or mode".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}
