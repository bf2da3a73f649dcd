//! From a provider's table to a provider that can be built: endpoint, trust root
//! and credentials are read, and the vendor's own module has looked at them. So
//! a wrong key file is found by `check` and at start, not by the first push.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushyard_providers::http::is_loopback;
use pushyard_providers::http::tls;
use pushyard_providers::registry::Context;
use pushyard_providers::settings::{SettingError, Value, Values};
use pushyard_providers::stream::{self, Hub};
use pushyard_providers::{CredentialGauge, Kind, Provider};
use reqwest::Url;

use super::check::{Check, check_name};
use super::error::Spot;
use super::file::{self, Own, Written};
use super::value::{At, Field};
use crate::routing::ProviderSettings;

/// A provider that has been checked.
#[derive(Clone)]
pub struct ProviderEntry {
    /// What the core knows of it.
    pub settings: Arc<ProviderSettings>,
    /// Its kind.
    pub kind: &'static Kind,
    /// What it is built from, without a memo.
    pub context: Context,
    /// Where its extra trust root was read, for people.
    pub ca_file: Option<PathBuf>,
    /// Built once, as the proof that it can be.
    checked: Arc<dyn Provider>,
}

impl ProviderEntry {
    /// Builds the provider anew, with what [`Provider::memo`] gave before a
    /// restart. Opens no connection.
    pub fn build(&self, memo: Option<String>, hub: Option<&Arc<Hub>>) -> Arc<dyn Provider> {
        if let Some(hub) = hub
            && self.kind.name == stream::KIND.name
        {
            return stream::provider(Arc::clone(hub));
        }
        let context = Context { memo, ..self.context.clone() };
        // Only the memo differs from what was built already: without it, then.
        (self.kind.build)(context).unwrap_or_else(|_| self.checked.clone())
    }

    /// What can be told about its credential.
    pub fn credential(&self) -> CredentialGauge {
        self.checked.gauge().credential
    }
}

impl ProviderEntry {
    /// Whether the same would be built of it: what only the core knows of a
    /// provider may differ.
    pub fn builds_the_same(&self, other: &Self) -> bool {
        let of = |entry: &Self| {
            let Context { endpoint, connect_timeout, timeout, connections, max_in_flight, .. } =
                entry.context.clone();
            (endpoint, connect_timeout, timeout, connections, max_in_flight)
        };
        self.kind == other.kind
            && of(self) == of(other)
            && self.context.values == other.context.values
            && self.context.ca == other.context.ca
    }
}

impl PartialEq for ProviderEntry {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.builds_the_same(other)
    }
}

impl fmt::Debug for ProviderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderEntry")
            .field("settings", &self.settings)
            .field("kind", &self.kind)
            .field("values", &self.context.values)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// Checks a provider. `None` when something is wrong, which has been reported.
pub(super) fn provider(check: &Check<'_>, written: file::Provider) -> Option<ProviderEntry> {
    let spot = written.spot.clone();
    let id = check.required(&written.id, &spot, "id");
    if let Some(id) = id {
        check.fault_if(&id.spot, check_name(&id.value));
    }
    // The common keys that a vendor's module may have something to say about.
    let common = [("endpoint", &written.endpoint), ("ca_file", &written.ca_file)];
    let common = common.map(|(name, field)| {
        (name, field.get().map_or_else(|| spot.missing(name), |at| at.spot.clone()))
    });
    let endpoint = endpoint(check, written.endpoint, plain_http(&written.own));
    let ca_file = written.ca_file.get().map(|path| check.path(&path.value));
    let ca = ca(check, written.ca_file);
    let kind = written.kind?;
    let mut spots: Vec<_> =
        written.own.iter().map(|own| (own.setting.name, own.spot.clone())).collect();
    spots.extend(common);
    let values = values(check, written.own);
    let context = Context {
        values: values?,
        endpoint: endpoint.ok()?,
        ca: ca.ok()?,
        connect_timeout: written.connect_timeout,
        timeout: written.timeout,
        connections: written.connections,
        max_in_flight: usize::try_from(written.max_in_flight).unwrap_or(usize::MAX),
        memo: None,
        clock: check.clock.clone(),
    };
    let checked = match (kind.build)(context.clone()) {
        Ok(provider) => provider,
        Err(errors) => {
            refused(check, &errors, &spots, &spot);
            return None;
        }
    };
    let id = id?.value.as_str();
    let settings = ProviderSettings {
        id: id.into(),
        kind: kind.name,
        region: written.region.map(Into::into),
        max_in_flight: written.max_in_flight,
        rate: written.rate,
        cost_per_million: written.cost_per_million,
        budget: written.budget,
        timeout: written.timeout,
        retry: written.retry,
        health: written.health,
        probe: written.probe,
    };
    Some(ProviderEntry { settings: Arc::new(settings), kind, context, ca_file, checked })
}

/// What the vendor's module says, at the keys that it is about.
fn refused(
    check: &Check<'_>,
    errors: &[SettingError],
    spots: &[(&'static str, Spot)],
    table: &Spot,
) {
    for error in errors {
        let spot = spots.iter().find(|(name, _)| *name == error.key);
        let spot = spot.map_or_else(|| table.missing(error.key), |(_, spot)| spot.clone());
        check.faults.add(&spot, error.detail.clone());
    }
    if errors.is_empty() {
        check.faults.add(table, "cannot be built, and its kind does not say why");
    }
}

/// A kind's own settings, secrets read.
fn values(check: &Check<'_>, own: Vec<Own>) -> Option<Values> {
    let mut values = Values::default();
    let mut complete = true;
    for Own { setting, written, spot } in own {
        let value = match written {
            Field::Absent => {
                complete &= !setting.required;
                continue;
            }
            Field::Wrong => None,
            Field::Is(At { value: Written::Text(text), .. }) => Some(Value::Text(text)),
            Field::Is(At { value: Written::List(list), .. }) => Some(Value::List(list)),
            Field::Is(At { value: Written::Flag(flag), .. }) => Some(Value::Flag(flag)),
            Field::Is(At { value: Written::Secret(origin), .. }) => {
                check.secret(origin, &spot).map(Value::Secret)
            }
            Field::Is(At { value: Written::Secrets(origins), .. }) => {
                // All are read, so that all that is wrong is told.
                let read: Vec<_> =
                    origins.into_iter().map(|at| check.secret(at.value, &at.spot)).collect();
                read.into_iter().collect::<Option<_>>().map(Value::Secrets)
            }
        };
        match value {
            Some(value) => values.insert(setting.name, value),
            None => complete = false,
        }
    }
    complete.then_some(values)
}

/// Whether `endpoint` may be `http:` beyond this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlainHttp {
    Never,
    /// The kind has the key `insecure_http`, and it is not set.
    NotAllowed,
    Allowed,
}

fn plain_http(own: &[Own]) -> PlainHttp {
    match own.iter().find(|own| own.setting.name == "insecure_http") {
        None => PlainHttp::Never,
        Some(Own { written: Field::Is(At { value: Written::Flag(true), .. }), .. }) => {
            PlainHttp::Allowed
        }
        Some(_) => PlainHttp::NotAllowed,
    }
}

/// `Err`: it is wrong, which has been reported.
fn endpoint(
    check: &Check<'_>,
    written: Field<String>,
    plain: PlainHttp,
) -> Result<Option<Url>, ()> {
    let At { value, spot } = match written {
        Field::Absent => return Ok(None),
        Field::Wrong => return Err(()),
        Field::Is(at) => at,
    };
    check_endpoint(&value, plain).map(Some).map_err(|detail| check.faults.add(&spot, detail))
}

/// The text is not shown: what stands before an `@` may be a password.
fn check_endpoint(text: &str, plain: PlainHttp) -> Result<Url, String> {
    const WANTED: &str = "as in \"https://push.example.com\"";
    let url =
        Url::parse(text).map_err(|error| format!("is no URL ({error}); write it {WANTED}"))?;
    if !["https", "http"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(format!("must be an https URL, {WANTED}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; credentials have keys of their own".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("must not have a query or fragment; write it {WANTED}"));
    }
    if url.scheme() == "https" || is_loopback(&url) {
        return Ok(url);
    }
    match plain {
        PlainHttp::Allowed => Ok(url),
        PlainHttp::Never => {
            Err("must be https: plain http is allowed towards this machine only".into())
        }
        PlainHttp::NotAllowed => Err("must be https: plain http is allowed towards this machine \
                                      only, or anywhere with insecure_http = true"
            .into()),
    }
}

/// `Err`: it is wrong, which has been reported.
fn ca(check: &Check<'_>, written: Field<String>) -> Result<Option<Vec<u8>>, ()> {
    let At { value, spot } = match written {
        Field::Absent => return Ok(None),
        Field::Wrong => return Err(()),
        Field::Is(at) => at,
    };
    let pem = check.read(Path::new(&value), &spot).ok_or(())?;
    match tls::certificates(&pem) {
        Ok(_) => Ok(Some(pem)),
        Err(detail) => {
            check.faults.add(&spot, format!("{}: {detail}", check.path(&value).display()));
            Err(())
        }
    }
}
