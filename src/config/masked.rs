//! The effective configuration as JSON, under the file's own keys, with `"***"`
//! for every secret: what `GET config` answers.

use serde_json::{Map, Value as Json, json};

use pushyard_providers::settings::Value;

use super::units::{show_duration, show_size};
use super::{ProviderEntry, Settings, Tls};
use crate::api::Client;
use crate::clock::Utc;
use crate::dispatch;
use crate::feedback::Target;
use crate::model::EventKind;
use crate::routing::{Budget, HealthSettings, Period, Rate, Route};
use crate::store;
use crate::stream;
use crate::telemetry::Format;

const MASK: &str = "***";

impl Settings {
    /// The effective configuration, secrets masked.
    pub fn masked(&self) -> Json {
        let format = match self.log.format {
            Format::Auto => "auto",
            Format::Json => "json",
            Format::Text => "text",
        };
        json!({
            "server": {
                "listen": self.server.listen.to_string(),
                "tls": self.server.tls.as_ref().map(tls),
                "watch": self.server.watch,
            },
            "admin": {
                "listen": self.admin.listen.to_string(),
                "tls": self.admin.tls.as_ref().map(tls),
                "open_metrics": self.admin.open_metrics,
                "events": self.operators.as_ref().map(|operators| json!({
                    "url": shown_url(&operators.target),
                    "secret": MASK,
                    "types": operators.types,
                })),
            },
            "stream": stream(&self.stream, self.stream_tls.as_ref()),
            "store": store(&self.store),
            "clients": self.clients.iter().map(|one| self.client(one)).collect::<Vec<_>>(),
            "providers": self.providers.iter().map(provider).collect::<Vec<_>>(),
            "routes": self.routes.iter().map(|route| self.route(route)).collect::<Vec<_>>(),
            "dispatch": dispatch(&self.dispatch),
            "limits": limits(&self.limits),
            "log": { "level": self.log.level, "format": format },
        })
    }

    fn client(&self, client: &Client) -> Json {
        let subscriber = self.subscribers.iter().find(|known| known.client == client.name);
        json!({
            "name": client.name,
            "key": MASK,
            "keys": client.keys.len(),
            "keys_expire": client.keys.iter().map(|key| key.expires.map(Utc::rfc3339)).collect::<Vec<_>>(),
            "rate": client.rate.map(rate),
            "routes": client.routes,
            "admin": client.admin,
            "events": subscriber.map(|subscriber| json!({
                "url": shown_url(&subscriber.target),
                "secret": MASK,
                "types": subscriber.kinds.iter().map(EventKind::word).collect::<Vec<_>>(),
            })),
        })
    }

    fn route(&self, route: &Route) -> Json {
        let id = |at: usize| self.providers.get(at).map_or("", |entry| &entry.settings.id);
        let ids = |tier: &Vec<_>| -> Vec<&str> {
            tier.iter().map(|member: &crate::routing::Member| id(member.provider.at())).collect()
        };
        let weights: Map<_, _> = route
            .tiers
            .iter()
            .flatten()
            .map(|member| (id(member.provider.at()).to_owned(), json!(member.weight)))
            .collect();
        json!({
            "name": route.name,
            "tiers": route.tiers.iter().map(ids).collect::<Vec<_>>(),
            "balance": route.balance.word(),
            "weights": weights,
        })
    }
}

fn tls(tls: &Tls) -> Json {
    json!({ "cert": tls.cert.display().to_string(), "key": tls.key.display().to_string() })
}

fn stream(settings: &stream::Settings, identity: Option<&Tls>) -> Json {
    json!({
        "listen": settings.listen.map(|listen| listen.to_string()),
        "tls": identity.map(tls),
        "access": settings.access.map(stream::Access::word),
        "secret": settings.secret.as_ref().map(|_| MASK),
        "unifiedpush": settings.takes_unifiedpush(),
        "scheduled": settings.scheduled,
        "backlog": settings.hub.backlog,
        "backlog_ttl": show_duration(settings.hub.backlog_ttl),
        "max_subscribers": settings.hub.max_subscribers,
        "max_subscribers_per_address": settings.bounds().max_subscribers_per_address,
        "max_subscribers_per_topic": settings.hub.max_subscribers_per_topic,
        "max_topics": settings.hub.max_topics,
        "max_topics_per_address": settings.hub.max_topics_per_address,
        "rate": settings.rate().map(rate),
        "keepalive": show_duration(settings.keepalive),
    })
}

fn store(settings: &store::Settings) -> Json {
    json!({
        "engine": "embedded",
        "path": settings.path.display().to_string(),
        "retention": show_duration(settings.retention),
        "max_bytes": show_size(settings.max_bytes),
        "commit_delay": show_duration(settings.commit_delay),
        "min_free": show_size(settings.min_free),
        "dead_letter_retention": show_duration(settings.dead_letter_retention),
        "max_dead_letters": settings.max_dead_letters,
    })
}

/// Without its query, where receivers are sometimes told secrets.
fn shown_url(target: &Target) -> String {
    let mut url = target.url.clone();
    if url.query().is_some() {
        url.set_query(Some(MASK));
    }
    url.to_string()
}

fn provider(entry: &ProviderEntry) -> Json {
    let (settings, context) = (&entry.settings, &entry.context);
    let probe = settings.probe.map(|probe| {
        json!({
            "interval": show_duration(probe.interval),
            "ejected_interval": show_duration(probe.ejected_interval),
            "timeout": show_duration(probe.timeout),
        })
    });
    let common = json!({
        "id": settings.id,
        "kind": settings.kind,
        "endpoint": context.endpoint.as_ref().map(reqwest::Url::as_str),
        "ca_file": entry.ca_file.as_ref().map(|path| path.display().to_string()),
        "region": settings.region,
        "budget": settings.budget.map(budget),
        "cost_per_million": settings.cost_per_million,
        "timeout": show_duration(settings.timeout),
        "connect_timeout": show_duration(context.connect_timeout),
        "connections": context.connections,
        "max_in_flight": settings.max_in_flight,
        "rate": settings.rate.map(rate),
        "probe": probe.unwrap_or(Json::Bool(false)),
        "health": health(&settings.health),
        "retry": {
            "min_delay": settings.retry.min_delay.map(show_duration),
            "throttle_cap": show_duration(settings.retry.throttle_cap),
        },
    });
    let own = context.values.iter().map(|(name, value)| (name.to_owned(), own(value)));
    match common {
        Json::Object(common) => own.chain(common).collect(),
        other => other,
    }
}

fn own(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::Secret(_) => json!(MASK),
        Value::Secrets(secrets) => json!(vec![MASK; secrets.len()]),
        Value::List(list) => json!(list),
        Value::Flag(flag) => json!(flag),
    }
}

fn rate(rate: Rate) -> Json {
    json!({ "per_second": rate.per_second, "burst": rate.burst })
}

fn budget(budget: Budget) -> Json {
    let period = match budget.period {
        Period::Day => "per_day",
        Period::Month => "per_month",
    };
    json!({ period: budget.amount, "hard": budget.hard })
}

fn health(health: &HealthSettings) -> Json {
    json!({
        "consecutive_failures": health.consecutive_failures,
        "window": show_duration(health.window),
        "min_samples": health.min_samples,
        "eject_below": health.eject_below,
        "degraded_below": health.degraded_below,
        "recover_above": health.recover_above,
        "slow_above": show_duration(health.slow_above),
        "stall_after": show_duration(health.stall_after),
        "base_ejection": show_duration(health.base_ejection),
        "max_ejection": show_duration(health.max_ejection),
        "canary_successes": health.canary_successes,
        "slow_start": show_duration(health.slow_start),
        "mass_gone_above": health.mass_gone_above,
    })
}

fn dispatch(settings: &dispatch::Settings) -> Json {
    json!({
        "backoff": show_duration(settings.backoff),
        "max_backoff": show_duration(settings.max_backoff),
        "max_attempts": settings.max_attempts,
        "body_cache": show_size(settings.body_cache),
        "shutdown_timeout": show_duration(settings.shutdown_timeout),
    })
}

fn limits(limits: &dispatch::Limits) -> Json {
    json!({
        "max_unsettled": limits.max_unsettled,
        "max_client_unsettled": limits.max_client_unsettled,
        "max_requests": limits.max_requests,
        "max_body": show_size(limits.max_body),
        "max_header_bytes": show_size(u64::from(limits.max_header_bytes)),
        "max_headers": limits.max_headers,
        "max_json_depth": limits.max_json_depth,
        "idle_timeout": show_duration(limits.idle_timeout),
        "body_timeout": show_duration(limits.body_timeout),
        "max_idempotency_keys": limits.max_idempotency_keys,
    })
}
