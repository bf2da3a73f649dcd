//! Our side: providers built as the router builds them, and what they would send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pushyard_providers::clock::Clock;
use pushyard_providers::registry::{Context, kind};
use pushyard_providers::settings::{Value as Setting, Values};
use pushyard_providers::{
    Address, Call, Notification, Priority, Provider, Push, Secret, VendorRequest, Written,
};
use serde_json::Value;
use uuid::Uuid;

pub const DELIVERY: Uuid = Uuid::from_u128(0x0197_f000_0000_7000_8000_0000_0000_0001);
pub const BUNDLE: &str = "com.example.shop";
pub const TOKEN: &str = "9f86d081884c7d65";
pub const EXPIRES: u64 = 1_796_112_000;
pub const TTL_S: u64 = 3600;

struct Fixed;

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_793_491_200_000
    }
}

fn context(values: Values, endpoint: Option<url::Url>, ca: Option<String>) -> Context {
    Context {
        values,
        endpoint,
        ca: ca.map(String::into_bytes),
        connect_timeout: Duration::from_secs(3),
        timeout: Duration::from_secs(10),
        connections: 1,
        max_in_flight: 100,
        memo: None,
        clock: Arc::new(Fixed),
    }
}

/// An APNs provider with a key made for the occasion.
pub fn apns(endpoint: Option<url::Url>, ca: Option<String>) -> Arc<dyn Provider> {
    let key = rcgen::KeyPair::generate().expect("a P-256 key").serialize_pem();
    let mut values = Values::default();
    values.insert("team_id", Setting::Text("TEAMID1234".into()));
    values.insert("key_id", Setting::Text("KEYID12345".into()));
    values.insert("key", Setting::Secret(Secret::new(key)));
    values.insert("app", Setting::Text(BUNDLE.into()));
    build("apns", context(values, endpoint, ca))
}

/// An FCM provider; only its payloads are asked for.
pub fn fcm() -> Arc<dyn Provider> {
    let mut values = Values::default();
    values.insert("credentials", Setting::Text("metadata".into()));
    values.insert("project_id", Setting::Text("my-project".into()));
    build("fcm", context(values, None, None))
}

fn build(name: &str, context: Context) -> Arc<dyn Provider> {
    let kind = kind(name).expect("a kind of this name");
    (kind.build)(context).expect("the settings are complete")
}

/// A message as the router hands it to an adapter.
pub fn push(
    notification: Option<Notification>,
    data: &[(&str, &str)],
    patch: Option<(&str, Value)>,
) -> Push {
    let patch = patch.map(|(kind, patch)| (kind.to_owned(), patch.to_string()));
    Push {
        priority: if notification.is_some() { Priority::High } else { Priority::Normal },
        notification,
        data: data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        collapse_key: None,
        overrides: BTreeMap::from_iter(patch),
    }
}

/// A call to one address.
pub fn call(provider: &dyn Provider, push: &Push, address: &[(&str, &str)]) -> Call {
    let kind = kind(provider.profile().kind).expect("the provider's own kind");
    Call {
        payload: Arc::new(provider.encode(push).expect("the vendor can take it")),
        address: Address::new(kind, address, None, None).expect("a well-formed address"),
        delivery: DELIVERY,
        reference: None,
        pushyard: "id.secret".into(),
        ttl: Duration::from_secs(TTL_S),
        expires_at: EXPIRES,
        written: Written::default(),
    }
}

/// What would go out, and its body as JSON.
pub fn request(
    provider: &dyn Provider,
    push: &Push,
    address: &[(&str, &str)],
) -> (VendorRequest, Value) {
    let request = provider.request(&call(provider, push, address)).expect("it can be sent");
    let body = serde_json::from_slice(&request.body).expect("the body is JSON");
    (request, body)
}
