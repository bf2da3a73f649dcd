//! Scenario files: an outage as a timeline, the traffic during it, and what is
//! expected of the router.
//!
//! `pushyard simulate --scenario` plays the timeline alone, `pushyard bench
//! failover --scenario` plays it against a router of its own and checks the
//! expectations. The shipped ones are compiled in, so that a name works on any
//! machine; a path works as well. Whatever is wrong with a file is told with its
//! line before anything is started.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pushyard_simulator::Mode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::load::script::Step;

/// The shipped scenarios by name.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    ("failing-500", include_str!("../../simulator/scenarios/failing-500.toml")),
    ("failing-503", include_str!("../../simulator/scenarios/failing-503.toml")),
    ("refusing", include_str!("../../simulator/scenarios/refusing.toml")),
    ("blackhole", include_str!("../../simulator/scenarios/blackhole.toml")),
    ("unreachable", include_str!("../../simulator/scenarios/unreachable.toml")),
    ("slow", include_str!("../../simulator/scenarios/slow.toml")),
    ("flaky", include_str!("../../simulator/scenarios/flaky.toml")),
    ("throttled", include_str!("../../simulator/scenarios/throttled.toml")),
    ("device-limits", include_str!("../../simulator/scenarios/device-limits.toml")),
    ("key-revoked", include_str!("../../simulator/scenarios/key-revoked.toml")),
    ("oauth-down", include_str!("../../simulator/scenarios/oauth-down.toml")),
    ("wrong-app", include_str!("../../simulator/scenarios/wrong-app.toml")),
    ("wrong-environment", include_str!("../../simulator/scenarios/wrong-environment.toml")),
    ("recovery", include_str!("../../simulator/scenarios/recovery.toml")),
    ("all-down", include_str!("../../simulator/scenarios/all-down.toml")),
    ("flapping", include_str!("../../simulator/scenarios/flapping.toml")),
    ("million-parked", include_str!("../../simulator/scenarios/million-parked.toml")),
];

/// A game day.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it rehearses, in a line.
    pub(super) about: String,
    /// How long messages are sent.
    #[serde(deserialize_with = "duration")]
    pub(super) duration: Duration,
    /// How long what is left may take to settle afterwards.
    #[serde(default = "two_minutes", deserialize_with = "duration")]
    pub(super) patience: Duration,
    /// By what all times of the file are divided in a short run.
    #[serde(default = "one")]
    pub(super) shorten: u32,
    /// Keys for every provider of the router, as TOML; none: its defaults.
    #[serde(default)]
    pub(super) provider: String,
    /// The vendor of the first tier.
    #[serde(default = "apns")]
    pub(super) first: Vendor,
    /// Who sends; none: 500 messages a second to both vendors.
    #[serde(default)]
    pub(super) traffic: Vec<Traffic>,
    /// What happens when.
    pub(super) timeline: Vec<Event>,
    /// What the router must show.
    #[serde(default)]
    pub(super) expect: Vec<Expect>,
}

/// A stream of messages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traffic {
    /// Messages a second.
    pub(super) rate: u32,
    /// Recipients of each.
    #[serde(default = "one")]
    pub(super) recipients: u32,
    /// The addresses of each recipient.
    #[serde(default = "both")]
    pub(super) addresses: Vec<Vendor>,
    /// Hex before each APNs token, to ask for an answer.
    #[serde(default)]
    pub(super) apns_prefix: String,
}

/// A vendor that messages go to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Vendor {
    Apns,
    Fcm,
}

/// A change of a vendor's behaviour.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    #[serde(deserialize_with = "duration")]
    at: Duration,
    /// It comes again after this time, until the messages end.
    #[serde(default, deserialize_with = "some_duration")]
    repeat: Option<Duration>,
    #[serde(deserialize_with = "station")]
    vendor: String,
    set: Behaviour,
}

/// The body of `PUT /vendors/{name}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    #[serde(deserialize_with = "mode")]
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_spread_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_latency_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goaway_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goaway_after_age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_streams: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_offset_s: Option<i64>,
}

/// What one figure must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) figure: Figure,
    /// The vendor or provider that it is of.
    #[serde(default, deserialize_with = "some_station")]
    pub(super) of: Option<String>,
    /// With this reason alone, where it is about states.
    #[serde(default)]
    pub(super) reason: Option<String>,
    /// The part of the run that it is about; open ends are those of the run.
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) from: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    pub(super) to: Option<Duration>,
    #[serde(default)]
    pub(super) at_most: Option<f64>,
    #[serde(default)]
    pub(super) at_least: Option<f64>,
}

/// What can be expected; `docs/game-days.md` says how each is measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    Lost,
    Duplicates,
    DuplicatesBeyondAmbiguous,
    AcceptP99Ms,
    SentP99Ms,
    #[serde(rename = "sent_within_5s_share")]
    SentWithin5sShare,
    EjectedAfterS,
    DegradedAfterS,
    HealthyAfterS,
    Ejections,
    StateChanges,
    ExtraCallsShare,
    Calls,
    TakenPerS,
    TakenShare,
    FirstTakenAfterS,
    RssMaxMib,
}

impl Scenario {
    /// The shipped scenario of that name, or the file at that path.
    ///
    /// Fails with file and line of what is wrong.
    pub(super) fn find(place: &str) -> Result<Self, String> {
        if let Some((_, text)) = SHIPPED.iter().find(|(name, _)| *name == place) {
            return Self::parse(text, place);
        }
        if !Path::new(place).exists() {
            let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no scenario or file {place:?}; the scenarios are {}",
                names.join(", ")
            ));
        }
        let text = std::fs::read_to_string(place).map_err(|error| format!("{place}: {error}"))?;
        Self::parse(&text, place)
    }

    fn parse(text: &str, place: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            format!("{place}:{line}: {}", error.message().replace('\n', "; "))
        })
    }

    /// The same in less time.
    pub(super) fn shortened(mut self) -> Self {
        let factor = self.shorten.max(1);
        let shrink = |time: &mut Duration| *time /= factor;
        shrink(&mut self.duration);
        for event in &mut self.timeline {
            shrink(&mut event.at);
            event.repeat.iter_mut().for_each(shrink);
        }
        for expect in &mut self.expect {
            expect.from.iter_mut().chain(&mut expect.to).for_each(shrink);
        }
        self
    }

    /// The timeline in order of time, repetitions written out.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for event in &self.timeline {
            let mut at = event.at;
            loop {
                let behaviour = serde_json::json!(event.set);
                let says = format!("{} {}", event.vendor, event.set.says());
                steps.push(Step { at, vendor: event.vendor.clone(), behaviour, says });
                match event.repeat.filter(|repeat| !repeat.is_zero()) {
                    Some(repeat) if at + repeat < self.duration => at += repeat,
                    Some(_) | None => break,
                }
            }
        }
        // Stable: what is written first happens first.
        steps.sort_by_key(|step| step.at);
        steps
    }
}

impl Behaviour {
    fn says(&self) -> String {
        let mut text = self.mode.word().to_owned();
        let details = serde_json::json!(self);
        for (name, value) in details.as_object().into_iter().flatten() {
            if name != "mode" {
                // Writing into a string cannot fail.
                let _ = write!(text, " {name}={value}");
            }
        }
        text
    }
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn apns() -> Vendor {
    Vendor::Apns
}

fn one() -> u32 {
    1
}

fn both() -> Vec<Vendor> {
    vec![Vendor::Apns, Vendor::Fcm]
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

fn station<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    const STATIONS: [&str; 5] = ["apns", "fcm", "fcm-oauth", "apns-sandbox", "*"];
    let name = String::deserialize(from)?;
    if STATIONS.contains(&name.as_str()) {
        return Ok(name);
    }
    let known = STATIONS.join(", ");
    Err(D::Error::custom(format!("unknown vendor {name:?}; there are {known}")))
}

fn some_station<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    station(from).map(Some)
}

fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
    let word = String::deserialize(from)?;
    Mode::ALL.into_iter().find(|mode| mode.word() == word).ok_or_else(|| {
        let known = Mode::ALL.map(Mode::word).join(", ");
        D::Error::custom(format!("unknown mode {word:?}; there are {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_scenarios_can_be_read_and_expect_something() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::find(name).unwrap();
            assert!(!scenario.expect.is_empty(), "{name}");
            assert!(scenario.steps().iter().all(|step| step.at <= scenario.duration), "{name}");
            assert!(scenario.clone().shortened().duration <= scenario.duration);
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let good = "about = \"x\"\nduration = \"9s\"\n[[timeline]]\nat = \"1s\"\n\
                    vendor = \"apns\"\nset = { mode = \"failing\" }\n";
        assert!(Scenario::parse(good, "f").is_ok());
        for (old, new, told) in [
            ("\"9s\"", "\"9 parsecs\"", "f:2: \"9 parsecs\""),
            ("\"apns\"", "\"apnt\"", "f:5: unknown vendor \"apnt\"; there are apns, fcm"),
            ("failing", "falling", "f:6: unknown mode \"falling\"; there are healthy"),
            ("set =", "sett =", "f:6: unknown field `sett`"),
            ("about = \"x\"\n", "", "f:1: missing field `about`"),
        ] {
            let error = Scenario::parse(&good.replace(old, new), "f").unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
        assert!(Scenario::find("no-such").unwrap_err().contains("failing-500"));
    }

    #[test]
    fn repeated_events_fill_the_run_in_order() {
        let text = "about = \"x\"\nduration = \"20s\"\nshorten = 2\n\
            [[timeline]]\nat = \"0s\"\nrepeat = \"10s\"\nvendor = \"apns\"\nset = { mode = \"failing\" }\n\
            [[timeline]]\nat = \"5s\"\nrepeat = \"10s\"\nvendor = \"apns\"\nset = { mode = \"healthy\" }\n";
        let at = |scenario: Scenario| -> Vec<u128> {
            scenario.steps().iter().map(|step| step.at.as_millis()).collect()
        };
        let scenario = Scenario::parse(text, "f").unwrap();
        assert_eq!(at(scenario.clone()), [0, 5000, 10_000, 15_000]);
        assert_eq!(at(scenario.shortened()), [0, 2500, 5000, 7500]);
    }
}
