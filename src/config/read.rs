//! A typed reader over the TOML tree. Each key is asked for once, by name and
//! shape; what nobody asked for is unknown. So the list of keys is the code that
//! reads them, and stands nowhere else.
//!
//! Not serde: it stops at the first error, and an operator wants all of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use pushyard_providers::Secret;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Faults, Spot, below};
use super::units;
use super::value::{
    At, Field, Origin, amount, duration, expects, nearest, number, one_of, text, unknown_word,
};
use crate::clock::Utc;
use crate::intake::time::rfc3339;

/// One level of the tree that nobody may leave with keys unread.
pub(super) struct Table<'a> {
    faults: &'a Faults<'a>,
    /// Paths of all keys that were asked for, for the test of the example file.
    asked: &'a RefCell<BTreeSet<String>>,
    /// `None`: the table is not there, and all of it is absent.
    entries: Option<&'a DeTable<'a>>,
    /// Where the table begins.
    pub(super) spot: Spot,
    known: Vec<&'static str>,
    later: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub(super) fn root(
        entries: &'a DeTable<'a>,
        faults: &'a Faults<'a>,
        asked: &'a RefCell<BTreeSet<String>>,
    ) -> Self {
        let spot = Spot { key: String::new(), offset: 0 };
        Self { faults, asked, entries: Some(entries), spot, known: Vec::new(), later: Vec::new() }
    }

    /// Whether there is such a table in the file.
    pub(super) fn is_there(&self) -> bool {
        self.entries.is_some()
    }

    /// Something is wrong with this table.
    pub(super) fn fault(&self, detail: impl Into<String>) {
        self.faults.add(&self.spot, detail);
    }

    /// Where a key's value stands, or would.
    pub(super) fn spot_of(&self, key: &str) -> Spot {
        let value = self.entries.and_then(|entries| entries.get(key));
        value.map_or_else(|| self.spot.missing(key), |value| self.spot_at(key, value))
    }

    /// Something is wrong with the value of this key.
    pub(super) fn fault_at(&self, key: &str, detail: impl Into<String>) {
        self.faults.add(&self.spot_of(key), detail);
    }

    /// Keys that exist, but not yet.
    pub(super) fn later(&mut self, keys: &[&'static str]) {
        self.later.extend_from_slice(keys);
    }

    /// Refuses every key that was not asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.entries.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let spot = Spot { key: below(&self.spot.key, name), offset: key.span().start };
            if self.later.contains(&name) {
                self.faults.add(&spot, "is not part of this release; remove it");
            } else {
                let near = nearest(name, self.known.iter().copied());
                self.faults.add(&spot, format!("unknown key{near}"));
            }
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Field<String> {
        self.read(key, |value| match text(value)? {
            "" => Err("must not be empty".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Field<bool> {
        self.read(key, |value| value.as_bool().ok_or_else(|| expects("true or false", value)))
    }

    /// One of these words.
    pub(super) fn word(
        &mut self,
        key: &'static str,
        words: &[&'static str],
        later: &[&'static str],
    ) -> Field<&'static str> {
        self.read(key, |value| {
            let text = text(value)?;
            if later.contains(&text) {
                return Err(format!("{text:?} is not part of this release; it {}", one_of(words)));
            }
            let known = words.iter().copied().find(|word| *word == text);
            known.ok_or_else(|| unknown_word(text, words))
        })
    }

    /// A socket address.
    pub(super) fn address(&mut self, key: &'static str) -> Field<SocketAddr> {
        self.read(key, |value| {
            let text = text(value)?;
            text.parse().map_err(|_| {
                format!(
                    "{text:?} is no IP address with a port; write it as in \"127.0.0.1:8080\" \
                     or \"[::1]:8080\""
                )
            })
        })
    }

    /// A whole number in a range.
    pub(super) fn whole<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Field<T> {
        self.read(key, |value| {
            let integer = value.as_integer().ok_or_else(|| expects("a whole number", value))?;
            u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|number| range.contains(number))
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| format!("must be between {} and {}", range.start(), range.end()))
        })
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str) -> Field<f64> {
        self.read(key, |value| {
            let number = number(value)?;
            let within = (0.0..=1.0).contains(&number);
            if within { Ok(number) } else { Err("must be between 0 and 1".to_owned()) }
        })
    }

    /// A number that is not below 0.
    pub(super) fn amount(&mut self, key: &'static str) -> Field<f64> {
        self.read(key, amount)
    }

    /// A number above 0.
    pub(super) fn above_zero(&mut self, key: &'static str) -> Field<f64> {
        self.read(key, |value| {
            let number = amount(value)?;
            if number > 0.0 { Ok(number) } else { Err("must be above 0".to_owned()) }
        })
    }

    /// A number that is at least 1.
    pub(super) fn at_least_one(&mut self, key: &'static str) -> Field<f64> {
        self.read(key, |value| {
            let number = number(value)?;
            if number >= 1.0 { Ok(number) } else { Err("must be at least 1".to_owned()) }
        })
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, key: &'static str) -> Field<Duration> {
        self.read(key, |value| {
            let duration = duration(value)?;
            if duration.is_zero() { Err("must be longer than 0".to_owned()) } else { Ok(duration) }
        })
    }

    /// A duration, or zero.
    pub(super) fn duration_or_zero(&mut self, key: &'static str) -> Field<Duration> {
        self.read(key, duration)
    }

    /// A moment, as a text or as TOML's own kind of value.
    pub(super) fn moment(&mut self, key: &'static str) -> Field<Utc> {
        self.read(key, |value| {
            let read = match value {
                DeValue::String(text) => rfc3339(text),
                DeValue::Datetime(moment) => rfc3339(&moment.to_string()),
                other => return Err(expects("a time, as in \"2026-12-01T00:00:00Z\"", other)),
            };
            read.ok_or_else(|| {
                "is no time of RFC 3339 with its offset; write it as in \"2026-12-01T00:00:00Z\""
                    .to_owned()
            })
        })
    }

    /// A size in bytes within a range.
    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Field<u64> {
        self.read(key, |value| {
            let text = value
                .as_str()
                .ok_or_else(|| expects("a text with a unit, as in \"256MiB\"", value))?;
            let size = units::size(text)?;
            if range.contains(&size) {
                return Ok(size);
            }
            let (least, most) = (units::show_size(*range.start()), *range.end());
            Err(match most {
                u64::MAX => format!("must be at least {least}"),
                most => format!("must be between {least} and {}", units::show_size(most)),
            })
        })
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, key: &'static str) -> Field<Vec<At<String>>> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        match self.strings(&spot, value) {
            Some(value) => Field::Is(At { value, spot }),
            None => Field::Wrong,
        }
    }

    /// A list of lists of strings.
    pub(super) fn texts_of_texts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Field<Vec<At<Vec<At<String>>>>> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        let DeValue::Array(items) = value else {
            self.faults.add(&spot, expects(&format!("a list of lists, as in {example}"), value));
            return Field::Wrong;
        };
        let mut lists = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{at}]", spot.key), offset: item.span().start };
            if item.get_ref().is_array() {
                lists.push(self.strings(&spot, item.get_ref()).map(|value| At { value, spot }));
            } else {
                let wanted = format!("a list, as in {example}");
                self.faults.add(&spot, expects(&wanted, item.get_ref()));
                lists.push(None);
            }
        }
        match lists.into_iter().collect() {
            Some(value) => Field::Is(At { value, spot }),
            None => Field::Wrong,
        }
    }

    /// A table of numbers under names that are not known beforehand.
    pub(super) fn amounts(&mut self, key: &'static str) -> Field<Vec<(String, At<f64>)>> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        let DeValue::Table(entries) = value else {
            self.faults.add(&spot, expects("a table, as in { apns = 3, fcm = 1 }", value));
            return Field::Wrong;
        };
        let mut numbers = Vec::new();
        for (name, value) in entries {
            let offset = value.span().start;
            let spot = Spot { key: below(&spot.key, name.get_ref()), offset };
            match amount(value.get_ref()) {
                Ok(value) => numbers.push((name.get_ref().to_string(), At { value, spot })),
                Err(detail) => self.faults.add(&spot, detail),
            }
        }
        if numbers.len() < entries.len() {
            return Field::Wrong;
        }
        Field::Is(At { value: numbers, spot })
    }

    /// A string, `{ env = "NAME" }` or `{ file = "path" }`. The value is never shown.
    pub(super) fn secret(&mut self, key: &'static str) -> Field<Origin> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        self.origin(spot, value)
    }

    /// One such, or a list of them.
    pub(super) fn secrets(&mut self, key: &'static str) -> Field<Vec<At<Origin>>> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        let DeValue::Array(items) = value else {
            return match self.origin(spot.clone(), value) {
                Field::Is(at) => Field::Is(At { value: vec![at], spot }),
                Field::Absent => Field::Absent,
                Field::Wrong => Field::Wrong,
            };
        };
        let mut origins = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{at}]", spot.key), offset: item.span().start };
            origins.extend(self.origin(spot, item.get_ref()).at());
        }
        if origins.len() == items.len() {
            Field::Is(At { value: origins, spot })
        } else {
            Field::Wrong
        }
    }

    fn origin(&self, spot: Spot, value: &DeValue<'_>) -> Field<Origin> {
        const WANTED: &str = "a string, { env = \"NAME\" } or { file = \"path\" }";
        let entries = match value {
            DeValue::String(text) if text.is_empty() => {
                self.faults.add(&spot, "must not be empty");
                return Field::Wrong;
            }
            DeValue::String(text) => {
                let value = Origin::Plain(Secret::new(text.to_string()));
                return Field::Is(At { value, spot });
            }
            DeValue::Table(entries) => entries,
            other => {
                self.faults.add(&spot, expects(WANTED, other));
                return Field::Wrong;
            }
        };
        let (faults, asked) = (self.faults, &RefCell::default());
        let mut table = Table {
            faults,
            asked,
            entries: Some(entries),
            spot: spot.clone(),
            known: Vec::new(),
            later: Vec::new(),
        };
        let (env, file) = (table.text("env"), table.text("file"));
        table.finish();
        match (env, file) {
            (Field::Is(name), Field::Absent) => {
                Field::Is(At { value: Origin::Env(name.value), spot })
            }
            (Field::Absent, Field::Is(path)) => {
                Field::Is(At { value: Origin::File(path.value), spot })
            }
            (Field::Absent, Field::Absent) if !entries.is_empty() => Field::Wrong,
            (Field::Wrong, _) | (_, Field::Wrong) => Field::Wrong,
            (Field::Is(_), Field::Is(_)) | (Field::Absent, Field::Absent) => {
                faults.add(&spot, format!("must be {WANTED}"));
                Field::Wrong
            }
        }
    }

    /// A table, or an empty one where there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        match self.find(key) {
            None => self.child(self.spot.missing(key), None),
            Some((spot, DeValue::Table(entries))) => self.child(spot, Some(entries)),
            Some((spot, other)) => {
                self.faults.add(&spot, expects("a table", other));
                self.child(spot, None)
            }
        }
    }

    /// A table, or `None` where `false` stands instead.
    pub(super) fn table_unless_off(&mut self, key: &'static str) -> Option<Self> {
        match self.find(key) {
            None | Some((_, DeValue::Boolean(true))) => {
                Some(self.child(self.spot.missing(key), None))
            }
            Some((_, DeValue::Boolean(false))) => None,
            Some((spot, DeValue::Table(entries))) => Some(self.child(spot, Some(entries))),
            Some((spot, other)) => {
                self.faults.add(&spot, expects("a table, or false", other));
                None
            }
        }
    }

    /// The tables of a list, as written with `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some((spot, value)) = self.find(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            let detail = match self.spot.key.is_empty() {
                true => format!("must be a list of tables; write [[{key}]]"),
                false => format!("must be a list of tables; write {key} = [{{ … }}, {{ … }}]"),
            };
            self.faults.add(&spot, detail);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{at}]", spot.key), offset: item.span().start };
            match item.get_ref() {
                DeValue::Table(entries) => tables.push(self.child(spot, Some(entries))),
                other => self.faults.add(&spot, expects("a table", other)),
            }
        }
        tables
    }

    fn child(&self, spot: Spot, entries: Option<&'a DeTable<'a>>) -> Self {
        let (faults, asked) = (self.faults, self.asked);
        Self { faults, asked, entries, spot, known: Vec::new(), later: Vec::new() }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<T> {
        let Some((spot, value)) = self.find(key) else { return Field::Absent };
        match parse(value) {
            Ok(value) => Field::Is(At { value, spot }),
            Err(detail) => {
                self.faults.add(&spot, detail);
                Field::Wrong
            }
        }
    }

    /// Marks the key as known and looks it up.
    fn find(&mut self, key: &'static str) -> Option<(Spot, &'a DeValue<'a>)> {
        self.known.push(key);
        self.asked.borrow_mut().insert(below(&self.spot.key, key));
        let value = self.entries?.get(key)?;
        Some((self.spot_at(key, value), value.get_ref()))
    }

    fn spot_at(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Spot {
        Spot { key: below(&self.spot.key, key), offset: value.span().start }
    }

    fn strings(&self, spot: &Spot, value: &DeValue<'_>) -> Option<Vec<At<String>>> {
        let DeValue::Array(items) = value else {
            self.faults.add(spot, expects("a list of strings", value));
            return None;
        };
        let mut strings = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let spot = Spot { key: format!("{}[{at}]", spot.key), offset: item.span().start };
            match text(item.get_ref()) {
                Ok(text) => strings.push(At { value: text.to_owned(), spot }),
                Err(detail) => self.faults.add(&spot, detail),
            }
        }
        (strings.len() == items.len()).then_some(strings)
    }
}
