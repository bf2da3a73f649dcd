//! The keys of a `[[providers]]` table that only one kind has, and their values
//! once the configuration has resolved them.
//!
//! A vendor declares its keys as data ([`Setting`]), so the configuration can
//! refuse unknown ones, read secrets and point at file and line without knowing
//! any vendor.

use std::collections::BTreeMap;

use crate::Secret;

/// A key that a kind adds to `[[providers]]`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key.
    pub name: &'static str,
    /// What may stand there.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// What may stand in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// A string, `{ env = "NAME" }` or `{ file = "path" }`.
    Secret,
    /// One of those, or a list of them: for a secret that is being replaced.
    Secrets,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings.
    List,
    /// true or false.
    Flag,
}

/// A resolved value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Shape::Text`] and [`Shape::Choice`].
    Text(String),
    /// Of [`Shape::Secret`].
    Secret(Secret),
    /// Of [`Shape::Secrets`].
    Secrets(Vec<Secret>),
    /// Of [`Shape::List`].
    List(Vec<String>),
    /// Of [`Shape::Flag`].
    Flag(bool),
}

/// A kind's settings by key. Only declared keys of the declared shape are in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(BTreeMap<&'static str, Value>);

impl Values {
    /// Sets a key.
    pub fn insert(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, value);
    }

    /// All that is set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// A text or choice.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Secret(_) | Value::Secrets(_) | Value::List(_) | Value::Flag(_)) | None => {
                None
            }
        }
    }

    /// A secret.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.0.get(name) {
            Some(Value::Secret(secret)) => Some(secret),
            Some(Value::Text(_) | Value::Secrets(_) | Value::List(_) | Value::Flag(_)) | None => {
                None
            }
        }
    }

    /// A list; empty when absent.
    pub fn list(&self, name: &str) -> &[String] {
        match self.0.get(name) {
            Some(Value::List(list)) => list,
            Some(Value::Text(_) | Value::Secret(_) | Value::Secrets(_) | Value::Flag(_)) | None => {
                &[]
            }
        }
    }

    /// One secret or several; empty when absent.
    pub fn secrets(&self, name: &str) -> &[Secret] {
        match self.0.get(name) {
            Some(Value::Secrets(secrets)) => secrets,
            Some(Value::Text(_) | Value::Secret(_) | Value::List(_) | Value::Flag(_)) | None => &[],
        }
    }
}

/// A key whose value a vendor cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// The key; one of the kind's settings, or a common one such as `endpoint`.
    pub key: &'static str,
    /// What is wrong and what to do; never the secret itself.
    pub detail: String,
}

impl SettingError {
    /// An error about `key`.
    pub fn new(key: &'static str, detail: impl Into<String>) -> Self {
        Self { key, detail: detail.into() }
    }
}
