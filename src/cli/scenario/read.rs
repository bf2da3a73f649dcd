//! How the values of a scenario file are read, and what is said of wrong ones.

use std::time::Duration;

use pushyard_simulator::Mode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

pub(super) fn station<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    const STATIONS: [&str; 5] = ["apns", "fcm", "fcm-oauth", "apns-sandbox", "*"];
    let name = String::deserialize(from)?;
    if STATIONS.contains(&name.as_str()) {
        return Ok(name);
    }
    let known = STATIONS.join(", ");
    Err(D::Error::custom(format!("unknown vendor {name:?}; there are {known}")))
}

pub(super) fn some_station<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    station(from).map(Some)
}

pub(super) fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
    let word = String::deserialize(from)?;
    Mode::ALL.into_iter().find(|mode| mode.word() == word).ok_or_else(|| {
        let known = Mode::ALL.map(Mode::word).join(", ");
        D::Error::custom(format!("unknown mode {word:?}; there are {known}"))
    })
}
