//! `[[providers]]` as written: the keys that all kinds have, and those that the
//! kind declares.

use std::time::Duration;

use pushyard_providers::Kind;
use pushyard_providers::settings::{Setting, Shape};

use crate::config::error::Spot;
use crate::config::read::Table;
use crate::config::units::show_duration;
use crate::config::value::{At, Field, Origin, one_of};
use crate::routing::{Budget, HealthSettings, Period, ProbeSettings, Rate, RetrySettings};

/// Kinds that exist, but not yet.
const LATER_KINDS: &[&str] = &[
    "webpush",
    "mqtt",
    "unifiedpush",
    "huawei",
    "honor",
    "xiaomi",
    "oppo",
    "vivo",
    "meizu",
    "wns",
    "adm",
];

const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 2;
const MAX_IN_FLIGHT: u32 = 1000;

/// One of `[[providers]]`.
pub(in crate::config) struct Provider {
    pub(in crate::config) spot: Spot,
    pub(in crate::config) id: Field<String>,
    /// `None`: missing or unknown, which has been reported.
    pub(in crate::config) kind: Option<&'static Kind>,
    pub(in crate::config) own: Vec<Own>,
    pub(in crate::config) endpoint: Field<String>,
    pub(in crate::config) ca_file: Field<String>,
    pub(in crate::config) region: Option<String>,
    pub(in crate::config) budget: Option<Budget>,
    pub(in crate::config) cost_per_million: f64,
    pub(in crate::config) timeout: Duration,
    pub(in crate::config) connect_timeout: Duration,
    pub(in crate::config) connections: usize,
    pub(in crate::config) max_in_flight: u32,
    pub(in crate::config) rate: Option<Rate>,
    pub(in crate::config) probe: Option<ProbeSettings>,
    pub(in crate::config) health: HealthSettings,
    pub(in crate::config) retry: RetrySettings,
}

/// A key that only the provider's kind has.
pub(in crate::config) struct Own {
    pub(in crate::config) setting: &'static Setting,
    /// Where it stands, or would.
    pub(in crate::config) spot: Spot,
    pub(in crate::config) written: Field<Written>,
}

/// The value of such a key.
pub(in crate::config) enum Written {
    Text(String),
    Secret(Origin),
    Secrets(Vec<At<Origin>>),
    List(Vec<String>),
    Flag(bool),
}

pub(super) fn provider(mut table: Table<'_>, kinds: &[&'static Kind]) -> Provider {
    let id = table.text("id");
    let words: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
    let later: Vec<_> =
        LATER_KINDS.iter().copied().filter(|later| !words.contains(later)).collect();
    let word = table.word("kind", &words, &later);
    if word.is_absent() {
        table.fault_at("kind", format!("is required; it {}", one_of(&words)));
    }
    let kind = word.at().and_then(|at| kinds.iter().copied().find(|kind| kind.name == at.value));
    let (timeout, connect_timeout) = timeouts(&mut table);
    let provider = Provider {
        spot: table.spot.clone(),
        id,
        kind,
        own: kind.map_or_else(Vec::new, |kind| own(&mut table, kind)),
        endpoint: table.text("endpoint"),
        ca_file: table.text("ca_file"),
        region: table.text("region").at().map(|region| region.value),
        budget: budget(&mut table),
        cost_per_million: table.amount("cost_per_million").or(0.0),
        timeout,
        connect_timeout,
        connections: table.whole("connections", 1..=100).or(CONNECTIONS),
        max_in_flight: table.whole("max_in_flight", 1..=1_000_000).or(MAX_IN_FLIGHT),
        rate: rate(&mut table),
        probe: table.table_unless_off("probe").map(probe),
        health: health(table.table("health")),
        retry: retry(table.table("retry")),
    };
    if kind.is_some() {
        // Without one nobody can say which keys there may be.
        table.finish();
    }
    provider
}

/// The connection's part of an attempt's time cannot be longer than the whole.
fn timeouts(table: &mut Table<'_>) -> (Duration, Duration) {
    let timeout = table.duration("timeout").or(TIMEOUT);
    let connect = table.duration("connect_timeout");
    if let Some(connect) = connect.get()
        && connect.value > timeout
    {
        table.fault_at(
            "connect_timeout",
            format!("must not be longer than timeout, which is {}", show_duration(timeout)),
        );
    }
    (timeout, connect.or(CONNECT_TIMEOUT.min(timeout)))
}

fn own(table: &mut Table<'_>, kind: &'static Kind) -> Vec<Own> {
    let mut all = Vec::new();
    for setting in kind.settings {
        let name = setting.name;
        let written = match setting.shape {
            Shape::Text => table.text(name).map(Written::Text),
            Shape::Secret => table.secret(name).map(Written::Secret),
            Shape::Secrets => table.secrets(name).map(Written::Secrets),
            Shape::Choice(words) => {
                table.word(name, words, &[]).map(|word| Written::Text(word.to_owned()))
            }
            Shape::List => table
                .texts(name)
                .map(|list| Written::List(list.into_iter().map(|item| item.value).collect())),
            Shape::Flag => table.flag(name).map(Written::Flag),
        };
        if setting.required && written.is_absent() {
            table.fault_at(name, format!("is required for kind {:?}", kind.name));
        }
        all.push(Own { setting, spot: table.spot_of(name), written });
    }
    all
}

pub(super) fn rate(parent: &mut Table<'_>) -> Option<Rate> {
    let mut table = parent.table("rate");
    let per_second = table.above_zero("per_second");
    let burst = table.at_least_one("burst");
    if table.is_there() && per_second.is_absent() {
        table.fault("needs per_second, as in { per_second = 500, burst = 1000 }");
    }
    table.finish();
    let per_second = per_second.at()?.value;
    // A second's worth, and at least the one token that a call takes.
    Some(Rate { per_second, burst: burst.or(per_second.max(1.0)) })
}

fn budget(parent: &mut Table<'_>) -> Option<Budget> {
    let mut table = parent.table("budget");
    let (day, month) = (table.amount("per_day"), table.amount("per_month"));
    let hard = table.flag("hard").or(false);
    let one_of_them = day.is_absent() != month.is_absent();
    if table.is_there() && !one_of_them {
        table.fault("needs either per_day or per_month, as in { per_day = 10.0, hard = false }");
    }
    table.finish();
    let (amount, period) = match (day.at(), month.at()) {
        (Some(day), _) => (day.value, Period::Day),
        (None, Some(month)) => (month.value, Period::Month),
        (None, None) => return None,
    };
    Some(Budget { amount, period, hard })
}

fn probe(mut table: Table<'_>) -> ProbeSettings {
    let default = ProbeSettings::default();
    let settings = ProbeSettings {
        interval: table.duration("interval").or(default.interval),
        ejected_interval: table.duration("ejected_interval").or(default.ejected_interval),
        timeout: table.duration("timeout").or(default.timeout),
    };
    table.finish();
    settings
}

fn health(mut table: Table<'_>) -> HealthSettings {
    let default = HealthSettings::default();
    let settings = HealthSettings {
        consecutive_failures: table
            .whole("consecutive_failures", 1..=1000)
            .or(default.consecutive_failures),
        window: table.duration("window").or(default.window),
        min_samples: table.whole("min_samples", 1..=1_000_000).or(default.min_samples),
        eject_below: table.share("eject_below").or(default.eject_below),
        degraded_below: table.share("degraded_below").or(default.degraded_below),
        recover_above: table.share("recover_above").or(default.recover_above),
        slow_above: table.duration("slow_above").or(default.slow_above),
        stall_after: table.duration("stall_after").or(default.stall_after),
        base_ejection: table.duration("base_ejection").or(default.base_ejection),
        max_ejection: table.duration("max_ejection").or(default.max_ejection),
        canary_successes: table.whole("canary_successes", 1..=1000).or(default.canary_successes),
        slow_start: table.duration_or_zero("slow_start").or(default.slow_start),
        mass_gone_above: table.share("mass_gone_above").or(default.mass_gone_above),
    };
    let HealthSettings { eject_below, degraded_below, recover_above, .. } = settings;
    if eject_below >= degraded_below || degraded_below >= recover_above {
        table.fault(format!(
            "must have eject_below < degraded_below < recover_above; \
             they are {eject_below}, {degraded_below} and {recover_above}"
        ));
    }
    if settings.window < Duration::from_secs(1) {
        table.fault_at("window", "must be at least 1s: it is counted in ten parts");
    }
    if settings.base_ejection > settings.max_ejection {
        table.fault(format!(
            "must have base_ejection ≤ max_ejection; they are {} and {}",
            show_duration(settings.base_ejection),
            show_duration(settings.max_ejection)
        ));
    }
    table.finish();
    settings
}

fn retry(mut table: Table<'_>) -> RetrySettings {
    let default = RetrySettings::default();
    let min_delay = table.duration_or_zero("min_delay").at().map(|delay| delay.value);
    let throttle_cap = table.duration("throttle_cap").or(default.throttle_cap);
    table.finish();
    RetrySettings { min_delay, throttle_cap }
}
