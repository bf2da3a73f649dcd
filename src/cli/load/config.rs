//! The router's configuration for a run.
//!
//! The simulator writes one that fits it (endpoints, authority, credentials);
//! this takes over the providers that a run is about, word for word, and sets
//! what the run needs: addresses to listen on, a store of its own, tiers, and
//! perhaps a quicker temper. Working on the parsed file keeps it independent of
//! what else the simulator learns to write.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use toml::{Table, Value};

use super::Failure;

/// What a run wants of the router.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// The tiers of the one route; exactly these providers are kept.
    pub(crate) tiers: Vec<Vec<&'static str>>,
    /// Keys set on every provider, as TOML.
    pub(crate) provider: String,
    /// Clients with a key each; with any there is also [`OPERATOR`]. None: whoever
    /// reaches the router may send.
    pub(crate) clients: Vec<String>,
    /// Keys of one provider that replace its own, as TOML: by its id, the last wins.
    pub(crate) changes: Vec<(String, String)>,
}

/// The client that may use the admin API and sees what belongs to others. It sends
/// where a run with clients names none.
pub(crate) const OPERATOR: &str = "bench";

impl Wish {
    /// The key that opens the admin API and all messages; none is needed without clients.
    pub(crate) fn operator_key(&self) -> Option<String> {
        self.operator().map(key)
    }

    fn operator(&self) -> Option<&'static str> {
        (!self.clients.is_empty()).then_some(OPERATOR)
    }
}

/// A client's key: long enough for the router, and secret to nobody, because a run
/// is on loopback and ends.
pub(crate) fn key(client: &str) -> String {
    format!("key-of-a-run-for-{client}")
}

/// Where the router listens; port 0 lets it choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// For backends.
    pub(crate) api: SocketAddr,
    /// For operators.
    pub(crate) admin: SocketAddr,
}

impl Addresses {
    /// Ports that the system chooses, on loopback.
    pub(crate) fn any() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { api: any, admin: any }
    }
}

/// Renders the configuration. Relative paths in it stay relative to the
/// simulator's folder, so it must be written there.
pub(crate) fn render(
    simulators: &str,
    wish: &Wish,
    addresses: &Addresses,
    store: &Path,
) -> Result<String, Failure> {
    let parsed: Table = simulators
        .parse()
        .map_err(|error| format!("the simulator's configuration cannot be read: {error}"))?;
    let wanted: Table = wish.provider.parse()?;
    let mut text = format!(
        "[server]\nlisten = \"{}\"\n\n[admin]\nlisten = \"{}\"\n\n[store]\npath = {}\n",
        addresses.api,
        addresses.admin,
        quoted(&store.to_string_lossy()),
    );
    for name in wish.clients.iter().map(String::as_str).chain(wish.operator()) {
        let (name, key, admin) = (quoted(name), quoted(&key(name)), name == OPERATOR);
        // Writing into a string cannot fail.
        let _ = write!(text, "\n[[clients]]\nname = {name}\nkey = {key}\nadmin = {admin}\n");
    }
    for id in wish.tiers.iter().flatten() {
        let mut provider = provider(&parsed, id)
            .ok_or_else(|| format!("the simulator's configuration has no provider {id:?}"))?
            .clone();
        provider.extend(wanted.clone());
        for (_, keys) in wish.changes.iter().filter(|(of, _)| of == id) {
            provider.extend(keys.parse::<Table>()?);
        }
        text.push_str("\n[[providers]]\n");
        for (key, value) in &provider {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{} = {}", quoted(key), inline(value));
        }
    }
    let tiers: Vec<Value> = wish.tiers.iter().map(|tier| tier.clone().into()).collect();
    let _ = write!(
        text,
        "\n[[routes]]\nname = \"default\"\ntiers = {}\nbalance = \"least_latency\"\n",
        inline(&Value::Array(tiers))
    );
    Ok(text)
}

fn provider<'a>(configuration: &'a Table, id: &str) -> Option<&'a Table> {
    let providers = configuration.get("providers")?.as_array()?;
    providers
        .iter()
        .filter_map(Value::as_table)
        .find(|provider| provider.get("id").and_then(Value::as_str) == Some(id))
}

/// A value on one line. (The `toml` crate's own writer is left out of the build
/// for the sake of the server, which never writes TOML.)
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        // `{:?}` keeps the point that makes it a float.
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let pairs: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), inline(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// A JSON string is a TOML basic string: the same quotes, and escapes that TOML
/// knows too (TOML 1.0, "String"). Only DEL must be escaped there and is not
/// here; no path of ours has one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATORS: &str = r#"
        [server]
        listen = "127.0.0.1:8080"
        [[providers]]
        id = "apns"
        kind = "apns"
        key = { file = "key.p8" }
        endpoint = "https://127.0.0.1:1"
        [[providers]]
        id = "fcm"
        kind = "fcm"
        [[providers]]
        id = "ntfy"
        kind = "ntfy"
        [[routes]]
        name = "other"
        tiers = [["apns", "ntfy"]]
    "#;

    fn rendered(wish: &Wish) -> Table {
        let text = render(SIMULATORS, wish, &Addresses::any(), Path::new("/a \"b\"/store"));
        text.unwrap().parse().unwrap()
    }

    #[test]
    fn wished_providers_are_taken_over_and_others_left_out() {
        let table = rendered(&Wish {
            tiers: vec![vec!["apns"], vec!["fcm"]],
            provider: "health = { base_ejection = \"3s\", eject_below = 0.5 }".to_owned(),
            ..Wish::default()
        });
        let providers = table["providers"].as_array().unwrap();
        assert_eq!(providers.len(), 2);
        assert_eq!(providers[0]["key"]["file"].as_str(), Some("key.p8"));
        for provider in providers {
            assert_eq!(provider["health"]["base_ejection"].as_str(), Some("3s"));
            assert_eq!(provider["health"]["eject_below"].as_float(), Some(0.5));
        }
        let routes = table["routes"].as_array().unwrap();
        assert_eq!(routes.len(), 1);
        let tiers = Value::Array(vec![vec!["apns"].into(), vec!["fcm"].into()]);
        assert_eq!(routes[0]["tiers"], tiers);
    }

    #[test]
    fn run_has_its_own_ports_and_store() {
        let table = rendered(&Wish { tiers: vec![vec!["apns"]], ..Wish::default() });
        assert_eq!(table["server"]["listen"].as_str(), Some("127.0.0.1:0"));
        assert_eq!(table["admin"]["listen"].as_str(), Some("127.0.0.1:0"));
        assert_eq!(table["store"]["path"].as_str(), Some("/a \"b\"/store"));
    }

    #[test]
    fn clients_have_keys_and_an_operator_among_them() {
        let none = rendered(&Wish { tiers: vec![vec!["apns"]], ..Wish::default() });
        assert!(!none.contains_key("clients"));
        let clients = vec!["calm".to_owned()];
        let table = rendered(&Wish { tiers: vec![vec!["apns"]], clients, ..Wish::default() });
        let clients = table["clients"].as_array().unwrap();
        let admins = clients.iter().map(|client| client["admin"].as_bool().unwrap());
        assert_eq!(admins.collect::<Vec<_>>(), [false, true]);
        assert_eq!(clients[0]["key"].as_str(), Some(key("calm").as_str()));
    }

    #[test]
    fn changes_replace_the_keys_of_one_provider() {
        let changes = vec![
            ("apns".to_owned(), "key = { file = \"spare.p8\" }".to_owned()),
            ("fcm".to_owned(), "project = \"p\"".to_owned()),
        ];
        let table = rendered(&Wish { tiers: vec![vec!["apns"]], changes, ..Wish::default() });
        let apns = &table["providers"].as_array().unwrap()[0];
        assert_eq!(apns["key"]["file"].as_str(), Some("spare.p8"));
        assert!(apns.get("project").is_none());
    }

    #[test]
    fn missing_provider_is_named() {
        let wish = Wish { tiers: vec![vec!["huawei"]], ..Wish::default() };
        let failure = render(SIMULATORS, &wish, &Addresses::any(), Path::new("/s")).unwrap_err();
        assert!(failure.to_string().contains("\"huawei\""), "{failure}");
    }
}
