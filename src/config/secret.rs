//! Fetches what the file only refers to: variables and files. An error names
//! where the secret should be, never what is there.

use std::path::{Path, PathBuf};

use pushyard_providers::Secret;

use super::check::Check;
use super::error::Spot;
use super::source::unreadable;
use super::value::Origin;

impl Check<'_> {
    /// A path as the system needs it.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    /// A secret's text; `None` when there is none, which has been reported.
    pub(super) fn secret(&self, origin: Origin, spot: &Spot) -> Option<Secret> {
        match origin {
            Origin::Plain(secret) => Some(secret),
            Origin::Env(name) => self.variable(&name, spot),
            Origin::File(path) => {
                let bytes = self.read(Path::new(&path), spot)?;
                let shown = self.path(&path);
                let Ok(mut text) = String::from_utf8(bytes) else {
                    self.faults.add(spot, format!("file {} is not UTF-8 text", shown.display()));
                    return None;
                };
                // Editors and `echo` end a file with one; no credential does.
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                if text.is_empty() {
                    self.faults.add(spot, format!("file {} is empty", shown.display()));
                    return None;
                }
                Some(Secret::new(text))
            }
        }
    }

    fn variable(&self, name: &str, spot: &Spot) -> Option<Secret> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(letters) || name.starts_with(|first: char| first.is_ascii_digit()) {
            // It may be the secret itself: not shown.
            self.faults.add(spot, "env must be the name of an environment variable");
            return None;
        }
        match self.sources.env(name) {
            Some(text) if !text.is_empty() => Some(Secret::new(text)),
            Some(_) => {
                self.faults
                    .add(spot, format!("environment variable {name} is empty; give it a value"));
                None
            }
            None => {
                let detail =
                    format!("environment variable {name} is not set; set it for this process");
                self.faults.add(spot, detail);
                None
            }
        }
    }

    /// A file's content; `None` when it cannot be read, which has been reported.
    pub(super) fn read(&self, path: &Path, spot: &Spot) -> Option<Vec<u8>> {
        if path.to_string_lossy().contains('\n') {
            // A pasted key: not shown.
            self.faults.add(spot, "must be the path of a file, not its content");
            return None;
        }
        let path = self.folder.join(path);
        self.sources
            .read(&path)
            .map_err(|error| {
                let detail = format!("file {} {}", path.display(), unreadable(&error));
                self.faults.add(spot, detail);
            })
            .ok()
    }
}
