//! What is wrong with a configuration, all of it at once, each with its place.
//!
//! Nothing in here ever quotes a value that may be a secret: errors name the key
//! and what would be right.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The configuration file as it was named.
    pub file: String,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 when it is about the file as a whole.
    pub column: usize,
    /// Such as `providers[1].key_id`; empty when it is about no key.
    pub key: String,
    /// What is wrong and what to do.
    pub detail: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Everything that is wrong, in the order of the file. Serialises as the `errors`
/// member of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// At least one.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let end = if at + 1 < self.errors.len() { "\n" } else { "" };
            write!(f, "{error}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl Errors {
    /// One error about the file as a whole.
    pub(super) fn of_file(file: String, detail: String) -> Self {
        let key = String::new();
        Self { errors: vec![ConfigError { file, line: 0, column: 0, key, detail }] }
    }
}

/// A place in the file: what an error points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The key's path.
    pub(super) key: String,
    /// Byte offset in the text.
    pub(super) offset: usize,
}

impl Spot {
    /// The place of a key below this one that is not there: this one's.
    pub(super) fn missing(&self, key: &str) -> Self {
        Self { key: below(&self.key, key), offset: self.offset }
    }
}

/// The path of a key in the table of this path.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Gathers what is wrong while the file is read and checked.
#[derive(Debug)]
pub(super) struct Faults<'a> {
    file: String,
    text: &'a str,
    found: RefCell<Vec<(usize, ConfigError)>>,
}

impl<'a> Faults<'a> {
    /// None so far.
    pub(super) fn new(file: String, text: &'a str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    /// Something is wrong at this place.
    pub(super) fn add(&self, spot: &Spot, detail: impl Into<String>) {
        let (line, column) = self.position(spot.offset);
        let error = ConfigError {
            file: self.file.clone(),
            line,
            column,
            key: spot.key.clone(),
            detail: detail.into(),
        };
        self.found.borrow_mut().push((spot.offset, error));
    }

    /// All that was found, in the order of the file.
    pub(super) fn into_errors(self) -> Errors {
        let mut found = self.found.into_inner();
        // Sections are read in a fixed order, not in the file's.
        found.sort_by(|(a, one), (b, other)| (a, &one.key).cmp(&(b, &other.key)));
        Errors { errors: found.into_iter().map(|(_, error)| error).collect() }
    }

    /// Line and column, both counted from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}
