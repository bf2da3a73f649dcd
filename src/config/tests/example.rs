//! The shipped example says every key, and its defaults are the code's.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pushyard_providers::Kind;
use pushyard_providers::registry::KINDS;
use serde_json::Value;

use super::super::Settings;
use super::{load, load_asking};

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// A line of the example, as far as it says something to the parser.
enum Line<'a> {
    /// `[section]` or `[[section]]`, with the comment sign taken off.
    Header(&'a str),
    /// `key = value`, with the comment sign taken off.
    Key {
        key: &'a str,
        text: &'a str,
        note: &'a str,
    },
    Prose,
}

fn line(text: &str) -> Line<'_> {
    let bare = text.strip_prefix("# ").unwrap_or(text);
    if bare.starts_with('[') {
        return Line::Header(bare);
    }
    match bare.split_once(" = ") {
        Some((key, _))
            if key.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b)) =>
        {
            let note = bare.rsplit_once("  # ").map_or("", |(_, note)| note);
            Line::Key { key, text: bare, note }
        }
        Some(_) | None => Line::Prose,
    }
}

/// The example with every header, every required key, and these lines in force.
fn with(also: &[usize]) -> String {
    let in_force = |(at, text)| match line(text) {
        Line::Header(bare) => bare,
        Line::Key { text: bare, note, .. }
            if note.starts_with("required") || also.contains(&at) =>
        {
            bare
        }
        Line::Key { .. } | Line::Prose => "",
    };
    EXAMPLE.lines().enumerate().map(in_force).collect::<Vec<_>>().join("\n")
}

fn keys() -> Vec<(usize, &'static str, &'static str)> {
    let keys = EXAMPLE.lines().enumerate().filter_map(|(at, text)| match line(text) {
        Line::Key { key, note, .. } => Some((at, key, note)),
        Line::Header(_) | Line::Prose => None,
    });
    keys.collect()
}

fn masked(text: &str) -> Value {
    load(text).unwrap_or_else(|errors| panic!("{errors}\n{text}")).masked()
}

#[test]
fn the_example_starts_as_it_is() {
    let settings = load(EXAMPLE).unwrap();
    assert_eq!(settings.masked(), load("").unwrap().masked());
    assert_eq!(settings.providers.len(), 0);
}

#[test]
fn each_commented_default_is_the_codes() {
    let base = masked(&with(&[]));
    for (at, key, note) in keys() {
        if note.starts_with("required") || note.contains("instead of") {
            continue;
        }
        let now = masked(&with(&[at]));
        let of_kind = |kind: &&Kind| kind.settings.iter().any(|setting| setting.name == key);
        if KINDS.iter().any(of_kind) && !note.starts_with("no default") {
            // What an absent key means, only the vendor's module knows.
            continue;
        }
        if note.starts_with("no default") {
            assert_ne!(now, base, "line {}: {key} changes nothing", at + 1);
        } else {
            assert_eq!(now, base, "line {}: {key} is not the default", at + 1);
        }
    }
}

#[test]
fn each_key_of_the_example_is_known_and_each_known_key_is_in_it() {
    let mut shown = BTreeSet::new();
    let mut section = String::new();
    for text in EXAMPLE.lines() {
        match line(text) {
            Line::Header(header) => {
                section = header.split(']').next().unwrap().trim_matches('[').to_owned();
                shown.insert(section.clone());
            }
            Line::Key { key, text, .. } => {
                shown.insert(format!("{section}.{key}"));
                let value: toml::Table = toml::from_str(text).unwrap();
                let free = [
                    "weights",
                    "key",
                    "service_account",
                    "certificate",
                    "certificate_key",
                    "token",
                    "password",
                    "secret",
                ];
                if let Some(inner) = value[key].as_table()
                    && !free.contains(&key)
                {
                    shown.extend(inner.keys().map(|inner| format!("{section}.{key}.{inner}")));
                }
            }
            Line::Prose => {}
        }
    }
    let asked = RefCell::default();
    load_asking(&with(&[]), KINDS, &asked).unwrap();
    let index = |path: &String| match path.split_once('[') {
        Some((list, rest)) => format!("{list}{}", &rest[rest.find(']').unwrap() + 1..]),
        None => path.clone(),
    };
    let mut asked: BTreeSet<_> = asked.borrow().iter().map(index).collect();
    // Sections of which no key is read directly are asked for as tables.
    asked.extend(["providers.health", "providers.probe", "providers.retry"].map(str::to_owned));
    assert_eq!(shown, asked);
}

#[test]
fn the_container_files_configuration_is_valid() {
    let text = include_str!("../../../deploy/pushyard.toml")
        .replace("PUSHYARD_ADMIN_KEY", "PUSHYARD_SHOP_KEY_2");
    let errors = load(&text).unwrap_err();
    // Only the variable that these tests do not set.
    assert_eq!(errors.errors.len(), 1, "{errors}");
    assert!(errors.to_string().contains("PUSHYARD_SHOP_KEY_2 is not set"), "{errors}");
}

#[test]
fn what_is_masked_never_shows_a_secret() {
    let settings: Settings = load(&with(&[])).unwrap();
    let shown = format!("{}{settings:?}{:?}", settings.masked(), settings.summary());
    for secret in [super::KEY, &super::P8[40..80], "BEGIN PRIVATE KEY"] {
        assert!(!shown.contains(secret));
    }
    assert!(shown.contains("\"***\""));
}
