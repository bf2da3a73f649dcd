//! Scenario files: an outage as a timeline, the traffic during it, and what is
//! expected of the router.
//!
//! `pushyard simulate --scenario` plays the timeline alone, `pushyard bench
//! failover --scenario` plays it against a router of its own and checks the
//! expectations. The shipped ones are compiled in, so that a name works on any
//! machine; a path works as well. Whatever is wrong with a file is told with its
//! line before anything is started.

mod check;
mod expect;
mod read;

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use pushyard_simulator::Mode;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub(in crate::cli) use self::expect::{Expect, Figure};
use self::read::{duration, mode, some_duration, station};
use super::load::script::Step;

/// The shipped scenarios by name.
pub(in crate::cli) const SHIPPED: &[(&str, &str)] = &[
    ("failing-500", include_str!("../../../simulator/scenarios/failing-500.toml")),
    ("failing-503", include_str!("../../../simulator/scenarios/failing-503.toml")),
    ("refusing", include_str!("../../../simulator/scenarios/refusing.toml")),
    ("blackhole", include_str!("../../../simulator/scenarios/blackhole.toml")),
    ("unreachable", include_str!("../../../simulator/scenarios/unreachable.toml")),
    ("slow", include_str!("../../../simulator/scenarios/slow.toml")),
    ("flaky", include_str!("../../../simulator/scenarios/flaky.toml")),
    ("throttled", include_str!("../../../simulator/scenarios/throttled.toml")),
    ("device-limits", include_str!("../../../simulator/scenarios/device-limits.toml")),
    ("key-revoked", include_str!("../../../simulator/scenarios/key-revoked.toml")),
    ("oauth-down", include_str!("../../../simulator/scenarios/oauth-down.toml")),
    ("wrong-app", include_str!("../../../simulator/scenarios/wrong-app.toml")),
    ("wrong-environment", include_str!("../../../simulator/scenarios/wrong-environment.toml")),
    ("recovery", include_str!("../../../simulator/scenarios/recovery.toml")),
    ("all-down", include_str!("../../../simulator/scenarios/all-down.toml")),
    ("flapping", include_str!("../../../simulator/scenarios/flapping.toml")),
    ("million-parked", include_str!("../../../simulator/scenarios/million-parked.toml")),
    ("flood", include_str!("../../../simulator/scenarios/flood.toml")),
];

/// A game day.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Scenario {
    /// What it rehearses, in a line.
    pub(in crate::cli) about: String,
    /// How long messages are sent.
    #[serde(deserialize_with = "duration")]
    pub(in crate::cli) duration: Duration,
    /// How long what is left may take to settle afterwards.
    #[serde(default = "two_minutes", deserialize_with = "duration")]
    pub(in crate::cli) patience: Duration,
    /// By what all times of the file are divided in a short run.
    #[serde(default = "one")]
    pub(in crate::cli) shorten: u32,
    /// Keys for every provider of the router, as TOML; none: its defaults.
    #[serde(default)]
    pub(in crate::cli) provider: String,
    /// The vendor of the first tier.
    #[serde(default = "apns")]
    pub(in crate::cli) first: Vendor,
    /// Who sends; none: 500 messages a second to both vendors.
    #[serde(default)]
    pub(in crate::cli) traffic: Vec<Traffic>,
    /// What happens when; nothing where the traffic alone is the trouble.
    #[serde(default)]
    pub(in crate::cli) timeline: Vec<Event>,
    /// When the router gets which other configuration.
    #[serde(default)]
    pub(in crate::cli) reload: Vec<Reload>,
    /// What the router must show.
    #[serde(default)]
    pub(in crate::cli) expect: Vec<Expect>,
}

/// A stream of messages.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Traffic {
    /// By which expectations refer to it; several may share one.
    #[serde(default)]
    pub(in crate::cli) name: Option<String>,
    /// When it begins; none: with the run.
    #[serde(default, deserialize_with = "some_duration")]
    pub(in crate::cli) from: Option<Duration>,
    /// The client that sends it; none: one for all such streams.
    #[serde(default)]
    pub(in crate::cli) client: Option<Spanned<String>>,
    /// What its messages ask for.
    #[serde(default)]
    pub(in crate::cli) priority: Option<Priority>,
    /// Messages a second.
    pub(in crate::cli) rate: u32,
    /// Recipients of each.
    #[serde(default = "one")]
    pub(in crate::cli) recipients: u32,
    /// The addresses of each recipient.
    #[serde(default = "both")]
    pub(in crate::cli) addresses: Vec<Vendor>,
    /// Hex before each APNs token, to ask for an answer.
    #[serde(default)]
    pub(in crate::cli) apns_prefix: String,
}

/// A vendor that messages go to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Vendor {
    Apns,
    Fcm,
}

/// A message's priority.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Priority {
    High,
    Normal,
}

/// Other keys for a provider of the router, which reads its configuration again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Reload {
    #[serde(deserialize_with = "duration")]
    pub(in crate::cli) at: Duration,
    pub(in crate::cli) provider: Vendor,
    /// As TOML.
    pub(in crate::cli) keys: Spanned<String>,
}

/// A change of a vendor's behaviour.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Event {
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

impl Scenario {
    /// The shipped scenario of that name, or the file at that path.
    ///
    /// Fails with file and line of what is wrong.
    pub(in crate::cli) fn find(place: &str) -> Result<Self, String> {
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
        let told = |at: Option<Range<usize>>, what: &str| {
            let before = at.and_then(|at| text.get(..at.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            format!("{place}:{line}: {}", what.replace('\n', "; "))
        };
        let scenario: Self =
            toml::from_str(text).map_err(|error| told(error.span(), error.message()))?;
        scenario.check().map_err(|(at, what)| told(Some(at), &what))?;
        Ok(scenario)
    }

    /// Until when all was well: up to the first step, unless that is the beginning.
    pub(in crate::cli) fn first_step(&self) -> Option<Duration> {
        let first = self.timeline.iter().map(|event| event.at).min();
        first.filter(|at| !at.is_zero())
    }

    /// The same in less time.
    pub(in crate::cli) fn shortened(mut self) -> Self {
        let factor = self.shorten.max(1);
        let shrink = |time: &mut Duration| *time /= factor;
        shrink(&mut self.duration);
        for event in &mut self.timeline {
            shrink(&mut event.at);
            event.repeat.iter_mut().for_each(shrink);
        }
        self.reload.iter_mut().for_each(|reload| shrink(&mut reload.at));
        self.traffic.iter_mut().filter_map(|stream| stream.from.as_mut()).for_each(shrink);
        for expect in &mut self.expect {
            let times = [&mut expect.from, &mut expect.to, &mut expect.baseline_to];
            times.into_iter().flatten().for_each(shrink);
            expect.unsettled_from /= u64::from(factor);
        }
        self
    }

    /// The timeline in order of time, repetitions written out.
    pub(in crate::cli) fn steps(&self) -> Vec<Step> {
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

impl Vendor {
    /// The id of its provider.
    pub(in crate::cli) fn id(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
        }
    }
}

impl Priority {
    /// As the API spells it.
    pub(in crate::cli) fn word(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_scenarios_can_be_read_and_expect_something() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::find(name).unwrap();
            assert!(!scenario.expect.is_empty(), "{name}");
            assert!(scenario.steps().iter().all(|step| step.at <= scenario.duration), "{name}");
            assert!(scenario.reload.iter().all(|reload| reload.at <= scenario.duration), "{name}");
            let begins = scenario.traffic.iter().filter_map(|stream| stream.from);
            assert!(begins.into_iter().all(|from| from < scenario.duration), "{name}");
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
    fn what_does_not_fit_together_is_told_with_its_line() {
        let text = "about = \"x\"\nduration = \"9s\"\n[[traffic]]\nrate = 1\nname = \"a\"\n\
            client = \"shop\"\n[[timeline]]\nat = \"1s\"\nvendor = \"apns\"\n\
            set = { mode = \"failing\" }\n[[reload]]\nat = \"2s\"\nprovider = \"apns\"\n\
            keys = 'x = 1'\n[[expect]]\ntraffic = \"a\"\nfigure = \"sent_p99_times\"\n";
        assert!(Scenario::parse(text, "f").is_ok());
        for (old, new, told) in [
            ("\"shop\"", "\"a shop\"", "f:6: \"a shop\" is no client's name"),
            ("\"shop\"", "\"bench\"", "f:6: the client \"bench\" is the bench's own"),
            ("name = \"a\"", "priority = \"low\"", "f:5: unknown variant `low`"),
            ("at = \"1s\"", "at = \"0s\"", "f:17: nothing to compare with"),
            ("'x = 1'", "'x = '", "f:14: not TOML"),
            ("traffic = \"a\"", "traffic = \"b\"", "f:16: unknown traffic \"b\"; there is a"),
            ("sent_p99_times", "calls", "f:16: this figure is not of messages"),
            ("traffic = \"a\"", "from = 3", "f:16: invalid type"),
            ("sent_p99_times\"", "sent_p99_ms\"\nbaseline_to = \"1s\"", "f:17: this figure has no"),
        ] {
            let error = Scenario::parse(&text.replace(old, new), "f").unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
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
