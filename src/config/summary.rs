//! What a configuration would run, a line each: the end of `pushyard check`.

use super::units::{about_size, show_duration, show_size};
use super::{ProviderEntry, Settings, Tls};
use crate::api::Client;
use crate::clock::Utc;
use crate::routing::Route;

/// Bytes on disk for an unsettled delivery: its record, its share of the message
/// and of the index pages. An estimate for a message of 1 KiB to one recipient.
const DISK_FOR_DELIVERY: u64 = 1536;

impl Settings {
    /// What would run, for people.
    pub fn summary(&self) -> Vec<String> {
        let metrics = if self.admin.open_metrics { "open" } else { "with a key" };
        let mut lines = vec![
            format!("api       {}://{}", scheme(&self.server.tls), self.server.listen),
            format!(
                "admin     {}://{} (/metrics {metrics})",
                scheme(&self.admin.tls),
                self.admin.listen
            ),
            format!(
                "store     {} (embedded): settled messages stay {} or until {}",
                self.store.path.display(),
                show_duration(self.store.retention),
                show_size(self.store.max_bytes),
            ),
            format!(
                "disk      about {} for {} unsettled deliveries (1.5 KiB each), {} stay free",
                about_size(self.limits.max_unsettled.saturating_mul(DISK_FOR_DELIVERY)),
                self.limits.max_unsettled,
                show_size(self.store.min_free),
            ),
        ];
        if let Some(listen) = self.stream.listen {
            let access = if self.stream.is_open() { "open" } else { "by token" };
            let scheme = scheme(&self.stream_tls);
            lines.push(format!("stream    {scheme}://{listen} ({access})"));
        }
        lines.extend(self.providers.iter().map(provider));
        lines.extend(self.routes.iter().map(|route| self.route_line(route)));
        lines.extend(self.clients.iter().map(client));
        lines.extend(self.warnings.iter().map(|warning| format!("warning   {warning}")));
        lines
    }

    fn route_line(&self, route: &Route) -> String {
        let id = |at: usize| self.providers.get(at).map_or("?", |entry| &entry.settings.id);
        let tiers: Vec<_> = route
            .tiers
            .iter()
            .map(|tier| {
                let members = tier.iter().map(|member| {
                    let id = id(member.provider.at());
                    let weight = member.weight;
                    if weight == 1.0 { id.to_owned() } else { format!("{id} ×{weight}") }
                });
                format!("[{}]", members.collect::<Vec<_>>().join(", "))
            })
            .collect();
        let tiers = if tiers.is_empty() { "nobody".to_owned() } else { tiers.join(" then ") };
        format!("route     {}: {tiers}, {}", route.name, route.balance.word())
    }
}

fn scheme(tls: &Option<Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

fn provider(entry: &ProviderEntry) -> String {
    let settings = &entry.settings;
    let endpoint = entry
        .context
        .endpoint
        .as_ref()
        .map_or("the vendor's endpoint", |url| url.as_str().trim_end_matches('/'));
    let credential = entry.credential();
    let kind = if credential.kind.is_empty() { "no credential" } else { credential.kind };
    let until = credential.expires_at.map_or_else(String::new, |end| {
        format!(" until {}", Utc::from_ms(end.saturating_mul(1000)).rfc3339())
    });
    let region = settings.region.as_ref().map_or_else(String::new, |r| format!(", region {r}"));
    let id = &settings.id;
    format!("provider  {id}: {} at {endpoint}, {kind}{until}{region}", settings.kind)
}

fn client(client: &Client) -> String {
    let routes = client
        .routes
        .as_ref()
        .map_or_else(|| "all routes".to_owned(), |routes| format!("routes {}", routes.join(", ")));
    let rate =
        client.rate.map_or_else(String::new, |rate| format!(", {} a second", rate.per_second));
    let admin = if client.admin { ", admin" } else { "" };
    format!("client    {}: {routes}{rate}{admin}", client.name)
}
