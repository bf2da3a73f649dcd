//! The provider against a stand-in for FCM over TLS and HTTP/2, and a token endpoint.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::KIND;
use crate::auth::oauth::tests::{TestClock, TokenServer};
use crate::auth::service_account::tests::key_file;
use crate::registry::Context;
use crate::settings::{SettingError, Value as Setting, Values};
use crate::{
    Address, Answer, Call, Dedup, Invalid, Outcome, Processed, Proves, Provider, Push, Secret,
    Written,
};

const UNAUTHENTICATED: &str = r#"{"error":{"code":401,"status":"UNAUTHENTICATED","details":[
    {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_EXPIRED"}]}}"#;

/// A request as it arrived.
struct Arrived {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Arrived {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// FCM's stand-in: answers as prescribed, else accepts.
struct Vendor {
    endpoint: url::Url,
    ca: Vec<u8>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    answers: Mutex<VecDeque<(u16, &'static str)>>,
}

impl Vendor {
    async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(Arc::clone(&serving).serve(acceptor.clone(), stream));
            }
        });
        let ca = certified.cert.pem().into_bytes();
        Self { endpoint: endpoint.parse().unwrap(), ca, shared, _tasks: tasks }
    }

    fn prescribe(&self, status: u16, body: &'static str) {
        self.shared.answers.lock().unwrap().push_back((status, body));
    }

    fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.shared.arrived.lock().unwrap())
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(100);
        let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
        let mut streams = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            streams.spawn(Arc::clone(&self).answer(request, respond));
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let (parts, mut stream) = request.into_parts();
        let mut body = BytesMut::new();
        while let Some(Ok(chunk)) = stream.data().await {
            body.extend_from_slice(&chunk);
            let _ = stream.flow_control().release_capacity(chunk.len());
        }
        self.arrived.lock().unwrap().push(Arrived {
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap(),
        });
        let prescribed = self.answers.lock().unwrap().pop_front();
        let (status, body) =
            prescribed.unwrap_or((200, r#"{"name":"projects/my-project/messages/1"}"#));
        let response = Response::builder().status(status).body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

fn context(token_uri: &str, endpoint: Option<url::Url>, ca: Option<Vec<u8>>) -> Context {
    let mut values = Values::default();
    let file = Secret::new(key_file(token_uri).to_string());
    values.insert("service_account", Setting::Secret(file));
    Context {
        values,
        endpoint,
        ca,
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        connections: 2,
        max_in_flight: 1000,
        memo: None,
        clock: TestClock::new(),
    }
}

/// A provider with its two peers.
struct World {
    vendor: Vendor,
    tokens: TokenServer,
    fcm: Arc<dyn Provider>,
}

impl World {
    async fn new() -> Self {
        let (vendor, tokens) = (Vendor::start().await, TokenServer::start().await);
        let context = context(&tokens.uri, Some(vendor.endpoint.clone()), Some(vendor.ca.clone()));
        let fcm = (KIND.build)(context).unwrap();
        Self { vendor, tokens, fcm }
    }

    fn call(&self, address: &[(&str, &str)]) -> Call {
        call(&*self.fcm, &Push::default(), address)
    }

    async fn send(&self) -> Answer {
        self.fcm.send(&self.call(&[("token", "e1")])).await
    }
}

fn call(fcm: &dyn Provider, push: &Push, address: &[(&str, &str)]) -> Call {
    Call {
        payload: Arc::new(fcm.encode(push).unwrap()),
        address: Address::new(&KIND, address, None, None).unwrap(),
        delivery: Uuid::from_u128(0x0197_aaaa_bbbb_cccc_dddd_eeee_ffff_0000),
        reference: None,
        pushyard: "0197aaaa-bbbb-cccc-dddd-eeeeffff0000.0123456789012345678901".into(),
        ttl: Duration::from_secs(60),
        expires_at: 1_700_000_060,
        written: Written::default(),
    }
}

fn offline() -> Arc<dyn Provider> {
    (KIND.build)(context("https://oauth2.googleapis.com/token", None, None)).unwrap()
}

#[tokio::test]
async fn a_push_is_sent_as_request_shows_it_and_accepted_under_its_name() {
    let world = World::new().await;
    let call = world.call(&[("token", "e1")]);
    let answer = world.fcm.send(&call).await;
    assert_eq!(answer.outcome, Outcome::Accepted);
    assert_eq!(answer.vendor_id.as_deref(), Some("projects/my-project/messages/1"));
    assert_eq!((answer.status, answer.credential), (Some(200), 1));
    assert!(call.written.is_set());
    let arrived = world.vendor.arrived().remove(0);
    assert_eq!(arrived.path, "/v1/projects/my-project/messages:send");
    assert_eq!(arrived.header("authorization"), "Bearer token-1");
    assert_eq!(arrived.header("content-type"), "application/json");
    assert_eq!(arrived.body["message"]["token"], "e1");
    let shown = world.fcm.request(&call).unwrap();
    assert!(shown.headers.get("authorization").is_none());
    assert_eq!(serde_json::from_slice::<Value>(&shown.body).unwrap(), arrived.body);
}

#[tokio::test]
async fn a_thousand_pushes_at_once_ask_for_one_token() {
    let world = World::new().await;
    let call = world.call(&[("token", "e1")]);
    let answers = join_all((0..1000).map(|_| world.fcm.send(&call))).await;
    assert!(answers.iter().all(|answer| answer.outcome == Outcome::Accepted), "{answers:?}");
    assert_eq!(world.tokens.calls(), 1);
    assert_eq!(world.vendor.arrived().len(), 1000);
}

#[tokio::test]
async fn a_refused_access_token_is_repaired_by_one_refresh() {
    let world = World::new().await;
    world.vendor.prescribe(401, UNAUTHENTICATED);
    let refused = world.send().await;
    assert_eq!(refused.outcome, Outcome::AuthFailed);
    assert!(refused.refreshable && !world.fcm.gauge().credential.ok);
    assert!(world.fcm.refresh(refused.credential).await);
    let answer = world.send().await;
    assert_eq!((answer.outcome, answer.credential), (Outcome::Accepted, 2));
    assert!(world.fcm.gauge().credential.ok);
    assert_eq!(world.tokens.calls(), 2);
    assert_eq!(world.vendor.arrived()[1].header("authorization"), "Bearer token-2");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_endpoint_is_named() {
    for (status, body, outcome, code) in [
        ("503 Service Unavailable", "", Outcome::Unavailable, "oauth_unavailable"),
        ("429 Too Many Requests", "", Outcome::Throttled, "oauth_throttled"),
        ("400 Bad Request", r#"{"error":"invalid_grant"}"#, Outcome::AuthFailed, "invalid_grant"),
    ] {
        let world = World::new().await;
        world.tokens.prescribe(status, "", body);
        let call = world.call(&[("token", "e1")]);
        let answer = world.fcm.send(&call).await;
        assert_eq!((answer.outcome, answer.code.as_deref()), (outcome, Some(code)));
        assert_eq!((answer.processed, answer.refreshable), (Processed::No, false));
        assert!(!call.written.is_set());
        assert!(world.vendor.arrived().is_empty());
    }
}

#[tokio::test]
async fn a_vendor_that_cannot_be_reached_is_unavailable() {
    let tokens = TokenServer::start().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("https://localhost:{}", gone.port()).parse().unwrap();
    let fcm = (KIND.build)(context(&tokens.uri, Some(endpoint), None)).unwrap();
    let answer = fcm.send(&call(&*fcm, &Push::default(), &[("token", "e1")])).await;
    assert_eq!((answer.outcome, answer.processed), (Outcome::Unavailable, Processed::No));
}

#[tokio::test]
async fn the_probe_is_a_dry_run_and_names_no_message() {
    let world = World::new().await;
    let answer = world.fcm.probe().await;
    assert_eq!((answer.outcome, answer.vendor_id), (Outcome::Accepted, None));
    assert_eq!(
        world.vendor.arrived()[0].body,
        json!({"validate_only": true, "message": {"topic": "health-probe", "data": {"p": "1"}}})
    );
    world.vendor.prescribe(403, "");
    assert_eq!(world.fcm.probe().await.outcome, Outcome::AuthFailed);
}

#[tokio::test]
async fn closing_twice_is_harmless() {
    let world = World::new().await;
    world.send().await;
    world.fcm.close().await;
    world.fcm.close().await;
}

#[test]
fn what_it_declares_is_what_the_vendor_documents() {
    let fcm = offline();
    let profile = fcm.profile();
    assert_eq!((profile.kind, profile.dedup), ("fcm", Dedup::Replaces));
    assert_eq!(profile.min_retry, Duration::from_secs(10));
    assert_eq!(profile.ping_interval, Some(Duration::from_secs(60)));
    assert_eq!(profile.probe.proves, Proves::Sending);
    assert!(profile.probe.only_when_quiet);
}

#[test]
fn an_address_of_another_project_is_not_served() {
    let fcm = offline();
    for (address, served) in [
        (vec![("token", "e1")], true),
        (vec![("token", "e1"), ("project", "my-project")], true),
        (vec![("token", "e1"), ("project", "other")], false),
    ] {
        let address = Address::new(&KIND, &address, None, None).unwrap();
        assert_eq!(fcm.serves(&address), served);
        assert!(fcm.parts(&address).is_empty());
    }
}

#[test]
fn addresses_are_checked_before_anything_is_sent() {
    let six = ["'a' in topics"; 6].join(" || ");
    let five = ["'a' in topics"; 5].join(" || ");
    for (address, fault) in [
        (vec![("token", "e1")], None),
        (vec![("fid", "f1")], None),
        (vec![("topic", "news-1_a.b~%")], None),
        (vec![("condition", five.as_str())], None),
        (vec![], Some("")),
        (vec![("token", "e1"), ("topic", "news")], Some("")),
        (vec![("topic", "/topics/news")], Some("topic")),
        (vec![("topic", "new s")], Some("topic")),
        (vec![("condition", six.as_str())], Some("condition")),
        (vec![("condition", "news")], Some("condition")),
        (vec![("token", "e1"), ("project", "a/b")], Some("project")),
        (vec![("token", "e1"), ("project", "..")], Some("project")),
    ] {
        let errors = Address::new(&KIND, &address, None, None).err().unwrap_or_default();
        assert_eq!(errors.first().map(|error| error.field), fault, "{address:?}");
    }
}

#[test]
fn a_payload_too_large_for_a_topic_is_refused_for_topics_alone() {
    let fcm = offline();
    let push = Push {
        data: [("x".to_owned(), "y".repeat(2500))].into_iter().collect(),
        ..Push::default()
    };
    assert!(fcm.request(&call(&*fcm, &push, &[("token", "e1")])).is_ok());
    for address in [("topic", "news"), ("condition", "'a' in topics")] {
        let Invalid { code, .. } = fcm.request(&call(&*fcm, &push, &[address])).unwrap_err();
        assert_eq!(code, "too_large");
    }
}

#[tokio::test]
async fn what_cannot_be_a_request_is_message_invalid_and_not_sent() {
    let world = World::new().await;
    let push = Push {
        data: [("x".to_owned(), "y".repeat(2500))].into_iter().collect(),
        ..Push::default()
    };
    let answer = world.fcm.send(&call(&*world.fcm, &push, &[("topic", "news")])).await;
    assert_eq!((answer.outcome, answer.processed), (Outcome::MessageInvalid, Processed::No));
    assert_eq!(answer.code.as_deref(), Some("too_large"));
    assert_eq!(world.tokens.calls(), 0);
}

#[test]
fn the_url_follows_project_and_endpoint() {
    let google = "https://oauth2.googleapis.com/token";
    for (project, endpoint, uri) in [
        (None, None, "https://fcm.googleapis.com/v1/projects/my-project/messages:send"),
        (Some("other-1"), None, "https://fcm.googleapis.com/v1/projects/other-1/messages:send"),
        (
            Some("example.com:other"),
            Some("https://proxy.example:8443/fcm/"),
            "https://proxy.example:8443/fcm/v1/projects/example.com:other/messages:send",
        ),
    ] {
        let mut context = context(google, endpoint.map(|url| url.parse().unwrap()), None);
        if let Some(project) = project {
            context.values.insert("project_id", Setting::Text(project.to_owned()));
        }
        let fcm = (KIND.build)(context).unwrap();
        let request = fcm.request(&call(&*fcm, &Push::default(), &[("token", "e1")])).unwrap();
        assert_eq!(request.uri, uri);
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_key() {
    let google = "https://oauth2.googleapis.com/token";
    let build = |change: &dyn Fn(&mut Context)| -> Vec<SettingError> {
        let mut context = context(google, None, None);
        change(&mut context);
        (KIND.build)(context).err().unwrap()
    };
    let none = build(&|context| context.values = Values::default());
    assert_eq!(none[0].key, "service_account");
    let table: [(&[(&'static str, &str)], &str); 5] = [
        (&[("credentials", "metadata")], "project_id"),
        (&[("credentials", "metadata"), ("project_id", "a b")], "project_id"),
        (
            &[("credentials", "metadata"), ("project_id", "p"), ("metadata_server", "here")],
            "metadata_server",
        ),
        (&[("metadata_server", "http://a")], "metadata_server"),
        (&[("credentials", "service_account")], "service_account"),
    ];
    for (settings, key) in table {
        let errors = build(&|context| {
            context.values = Values::default();
            for (name, value) in settings {
                context.values.insert(name, Setting::Text((*value).to_owned()));
            }
        });
        assert_eq!(errors[0].key, key, "{settings:?}");
    }
    let both = build(&|context| {
        context.values.insert("credentials", Setting::Text("metadata".to_owned()));
    });
    assert_eq!(both[0].key, "service_account");
    let project = build(&|context| {
        context.values.insert("project_id", Setting::Text("a/../b".to_owned()));
    });
    assert_eq!(project[0].key, "project_id");
    let file = build(&|context| {
        let mut file = key_file(google);
        file["project_id"] = "a b".into();
        context.values.insert("service_account", Setting::Secret(Secret::new(file.to_string())));
    });
    assert_eq!(file[0].key, "service_account");
}
