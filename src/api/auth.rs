//! Who is asking: `Authorization: Bearer <key>` to a client.
//!
//! Keys are held and looked up as SHA-256, so the time of the look-up tells
//! nothing about a key, and no key is in memory. Without configured clients
//! everyone is `local`, with every right; the configuration sees to it that such
//! a listener is only reachable from this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use hashbrown::HashMap;

use super::client::{Client, KeyHash};
use super::problem::{Code, Problem};
use super::rate::{Limiter, Standing};
use crate::clock::{Clock, Utc};

/// Tells clients by their keys.
#[derive(Debug)]
pub struct Authenticator {
    /// Exchanged as a whole by a reload.
    known: ArcSwap<Known>,
}

/// All clients of a configuration.
#[derive(Debug)]
struct Known {
    /// By the key's hash; `None`: no clients are configured.
    clients: Option<HashMap<KeyHash, Holder>>,
    local: Arc<Caller>,
    /// Whether any of them has a rate.
    any_rate: bool,
}

/// Whose key it is, and until when.
#[derive(Debug)]
struct Holder {
    caller: Arc<Caller>,
    expires: Option<Utc>,
}

/// A client as it is met in requests.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    limiter: Option<Limiter>,
    clock: Arc<Clock>,
}

impl Authenticator {
    /// For these clients; none at all: everyone is `local`.
    pub fn new(clients: Vec<Client>, clock: &Arc<Clock>) -> Self {
        Self { known: ArcSwap::from_pointee(Known::new(clients, None, clock)) }
    }

    /// For these clients from now on. Those that have not changed keep what is
    /// left of their rate.
    pub fn replace(&self, clients: Vec<Client>, clock: &Arc<Clock>) {
        let before = self.known.load();
        self.known.store(Arc::new(Known::new(clients, Some(&before), clock)));
    }

    /// Whether there is a client of this name.
    pub fn knows(&self, name: &str) -> bool {
        let known = self.known.load();
        match &known.clients {
            Some(clients) => clients.values().any(|holder| &*holder.caller.client.name == name),
            None => &*known.local.client.name == name,
        }
    }

    /// The names of all clients, sorted, and whether they may use the admin API.
    pub fn clients(&self) -> BTreeMap<Arc<str>, bool> {
        let known = self.known.load();
        let of = |caller: &Caller| (caller.client.name.clone(), caller.client.admin);
        match &known.clients {
            Some(clients) => clients.values().map(|holder| of(&holder.caller)).collect(),
            None => BTreeMap::from([of(&known.local)]),
        }
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// 401 without a key, with an unknown one, or with one that has expired.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let known = self.known.load();
        let Some(clients) = &known.clients else { return Ok(Arc::clone(&known.local)) };
        let key = bearer(headers).ok_or_else(|| {
            Problem::new(Code::Unauthenticated, "send the header Authorization: Bearer <key>")
        })?;
        let holder = clients
            .get(&KeyHash::of(key))
            .ok_or_else(|| Problem::new(Code::Unauthenticated, "no client has this key"))?;
        match holder.expires {
            Some(end) if holder.caller.clock.now().utc >= end => {
                let detail = format!("this key expired at {}; use a newer one", end.rfc3339());
                Err(Problem::new(Code::Unauthenticated, detail))
            }
            Some(_) | None => Ok(Arc::clone(&holder.caller)),
        }
    }

    /// Who sends these headers, where any client has a rate: nobody else pays for it.
    pub(super) fn rated(&self, headers: &HeaderMap) -> Option<Arc<Caller>> {
        if self.known.load().any_rate { self.caller(headers).ok() } else { None }
    }

    /// Who sends these headers, if it may use the admin API.
    ///
    /// # Errors
    /// 401, or 403 when the client is no admin.
    pub fn admin(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let caller = self.caller(headers)?;
        if caller.is_admin() {
            Ok(caller)
        } else {
            Err(Problem::new(Code::Forbidden, "the admin API needs a key with admin = true"))
        }
    }
}

impl Known {
    fn new(clients: Vec<Client>, before: Option<&Self>, clock: &Arc<Clock>) -> Self {
        let local = Client {
            name: "local".into(),
            keys: Vec::new(),
            rate: None,
            routes: None,
            admin: true,
        };
        let local = Arc::new(Caller::new(local, clock));
        if clients.is_empty() {
            return Self { clients: None, local, any_rate: false };
        }
        let any_rate = clients.iter().any(|client| client.rate.is_some());
        let mut by_key = HashMap::new();
        for client in clients {
            let same = before.and_then(|before| before.of(&client));
            let caller = same.unwrap_or_else(|| Arc::new(Caller::new(client, clock)));
            for key in &caller.client.keys {
                let holder = Holder { caller: Arc::clone(&caller), expires: key.expires };
                by_key.insert(key.hash, holder);
            }
        }
        Self { clients: Some(by_key), local, any_rate }
    }

    /// A client that has not changed.
    fn of(&self, client: &Client) -> Option<Arc<Caller>> {
        let clients = self.clients.as_ref()?;
        let mut callers = clients.values().map(|holder| &holder.caller);
        callers.find(|caller| caller.client == *client).cloned()
    }
}

impl Caller {
    fn new(client: Client, clock: &Arc<Clock>) -> Self {
        let limiter = client.rate.map(|rate| Limiter::new(rate, clock));
        Self { client, limiter, clock: Arc::clone(clock) }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.client.name
    }

    /// The routes that it may name; `None`: all.
    pub fn routes(&self) -> Option<&[Arc<str>]> {
        self.client.routes.as_deref()
    }

    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        self.client.admin
    }

    /// What is left of its rate; `None`: it has none.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.limiter.as_ref().map(Limiter::standing)
    }

    /// Counts one message against its rate.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn count_message(&self) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.count().map_err(|wait| {
            let detail = "this client sends more than its configured rate; slow down";
            Problem::new(Code::RateLimited, detail).retry_after(wait)
        })
    }
}

/// The token of `Authorization: Bearer`; the scheme's case does not matter (RFC
/// 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    let one = values.next().is_none();
    (one && scheme.eq_ignore_ascii_case(b"bearer ")).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::client::ClientKey;
    use super::*;
    use crate::routing::Rate;

    fn client(name: &str, key: &[u8], admin: bool) -> Client {
        let keys = vec![KeyHash::of(key).into()];
        Client { name: name.into(), keys, rate: None, routes: None, admin }
    }

    fn headers(authorization: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_client_is_known_by_its_key_alone() {
        let clients = vec![client("shop", b"k-shop", false), client("ops", b"k-ops", true)];
        let authenticator = Authenticator::new(clients, &Arc::default());
        let name = |values: &[&'static str]| {
            authenticator.caller(&headers(values)).map(|caller| caller.name().to_string()).ok()
        };
        assert_eq!(name(&["Bearer k-shop"]).as_deref(), Some("shop"));
        assert_eq!(name(&["bearer  k-ops "]).as_deref(), Some("ops"));
        for bad in [
            &[][..],
            &["Bearer k-sho"],
            &["Bearer"],
            &["Bearer "],
            &["Basic k-shop"],
            &["k-shop"],
            &["Bearer k-shop", "Bearer k-shop"],
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        let admin = |values: &[&'static str]| {
            authenticator.admin(&headers(values)).map_err(|problem| problem.code()).err()
        };
        assert_eq!(admin(&["Bearer k-ops"]), None);
        assert_eq!(admin(&["Bearer k-shop"]), Some(Code::Forbidden));
        assert_eq!(admin(&[]), Some(Code::Unauthenticated));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_opens_until_it_expires_and_another_of_the_same_client_goes_on() {
        let clock = Arc::<Clock>::default();
        let end = clock.now().utc.plus(Duration::from_secs(60));
        let old = ClientKey { hash: KeyHash::of(b"old"), expires: Some(end) };
        let keys = vec![old, KeyHash::of(b"new").into()];
        let clients = vec![Client { keys, ..client("shop", b"", false) }];
        let authenticator = Authenticator::new(clients, &clock);
        let caller = |key| authenticator.caller(&headers(&[key]));
        let before = caller("Bearer old").unwrap();
        assert!(Arc::ptr_eq(&before, &caller("Bearer new").unwrap()));
        // The system's clock stands still meanwhile, which holds ours back a little.
        tokio::time::advance(Duration::from_secs(120)).await;
        let problem = caller("Bearer old").unwrap_err();
        assert_eq!(problem.code(), Code::Unauthenticated);
        let told = format!("this key expired at {}; use a newer one", end.rfc3339());
        assert!(format!("{problem:?}").contains(&told), "{problem:?}");
        caller("Bearer new").unwrap();
    }

    #[test]
    fn without_clients_everyone_is_local_and_may_do_everything() {
        let authenticator = Authenticator::new(Vec::new(), &Arc::default());
        let caller = authenticator.admin(&HeaderMap::new()).unwrap();
        assert_eq!(&**caller.name(), "local");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_gives_its_burst_and_then_its_pace() {
        let rate = Some(Rate { per_second: 2.0, burst: 3.0 });
        let clients = vec![Client { rate, ..client("shop", b"k", false) }];
        let authenticator = Authenticator::new(clients, &Arc::default());
        let caller = authenticator.caller(&headers(&["Bearer k"])).unwrap();
        for _ in 0..3 {
            caller.count_message().unwrap();
        }
        let problem = caller.count_message().unwrap_err();
        assert_eq!(problem.code(), Code::RateLimited);
        assert!(problem.wait().unwrap() <= Duration::from_millis(500));
        tokio::time::advance(Duration::from_millis(501)).await;
        caller.count_message().unwrap();
        caller.count_message().unwrap_err();
    }
}
