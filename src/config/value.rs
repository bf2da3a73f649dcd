//! Single values: what stands at a key, and how the shapes that keys have are
//! read. Errors say what should stand there; what does is shown only where it
//! cannot be a secret.

use std::time::Duration;

use pushyard_providers::Secret;
use toml::de::DeValue;

use super::error::Spot;
use super::units;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) spot: Spot,
}

/// What stands at a key.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    /// Nothing.
    Absent,
    /// Something unusable, which has been reported.
    Wrong,
    /// This.
    Is(At<T>),
}

impl<T> Field<T> {
    /// The value, or the default.
    pub(super) fn or(self, default: T) -> T {
        self.at().map_or(default, |at| at.value)
    }

    /// The same place with another form of the value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Wrong => Field::Wrong,
            Self::Is(At { value, spot }) => Field::Is(At { value: change(value), spot }),
        }
    }

    /// The value with its place, if there is a usable one.
    pub(super) fn at(self) -> Option<At<T>> {
        match self {
            Self::Is(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The same, borrowed.
    pub(super) fn get(&self) -> Option<&At<T>> {
        match self {
            Self::Is(at) => Some(at),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Whether the key is not there at all.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// Where a secret comes from, as written.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// It stands in the file.
    Plain(Secret),
    /// An environment variable of this name.
    Env(String),
    /// A file of this path.
    File(String),
}

/// `; did you mean "…"?`, or nothing when no name is near.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let length = name.chars().count();
    // A third of the letters may be wrong: more is another word.
    let bearable = (length / 3).clamp(1, 3).min(length.saturating_sub(1));
    let begins_alike = |known: &str| {
        name.len().min(known.len()) > 3 && (name.starts_with(known) || known.starts_with(name))
    };
    let distance = |known: &str| match strsim::osa_distance(name, known) {
        distance if distance > bearable && begins_alike(known) => bearable,
        distance => distance,
    };
    let best = known.map(|known| (distance(known), known)).min();
    match best {
        Some((distance, known)) if distance <= bearable => format!("; did you mean {known:?}?"),
        Some(_) | None => String::new(),
    }
}

/// Says that a word is none of these, and which it may have meant.
pub(super) fn unknown_word(word: &str, words: &[&str]) -> String {
    match nearest(word, words.iter().copied()) {
        near if near.is_empty() => format!("{word:?} is not known; it {}", one_of(words)),
        near => format!("{word:?} is not known{near}"),
    }
}

/// `must be one of …`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => "there is none".to_owned(),
        [only] => format!("must be {only:?}"),
        [one, other] => format!("must be {one:?} or {other:?}"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|word| format!("{word:?}")).collect();
            format!("must be {} or {last:?}", first.join(", "))
        }
    }
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| expects("a string", value))
}

pub(super) fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => return Err(expects("a number", value)),
    };
    number.filter(|number: &f64| number.is_finite()).ok_or_else(|| "must be finite".to_owned())
}

pub(super) fn amount(value: &DeValue<'_>) -> Result<f64, String> {
    let number = number(value)?;
    if number < 0.0 { Err("must not be below 0".to_owned()) } else { Ok(number) }
}

pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let text = value.as_str().ok_or_else(|| expects("a text with a unit, as in \"30s\"", value))?;
    units::duration(text)
}

/// Says what should stand there and what does, without showing it.
pub(super) fn expects(wanted: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("must be {wanted}, not {found}")
}
