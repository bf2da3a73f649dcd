//! Every reason that `a2` knows, said by a stand-in, and what becomes of it with us.
//!
//! The `match` has no wildcard: a reason that a later `a2` adds does not compile
//! until it is said here what it means.

use std::sync::Arc;

use a2::ErrorReason::{self, *};
use bytes::Bytes;
use pushyard_providers::{Notification, Outcome};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::Report;
use crate::ours;

const ALL: [ErrorReason; 28] = [
    BadCollapseId,
    BadDeviceToken,
    BadExpirationDate,
    BadMessageId,
    BadPriority,
    BadTopic,
    DeviceTokenNotForTopic,
    DuplicateHeaders,
    IdleTimeout,
    MissingDeviceToken,
    MissingTopic,
    PayloadEmpty,
    TopicDisallowed,
    BadCertificate,
    BadCertificateEnvironment,
    ExpiredProviderToken,
    Forbidden,
    InvalidProviderToken,
    MissingProviderToken,
    BadPath,
    MethodNotAllowed,
    Unregistered,
    PayloadTooLarge,
    TooManyProviderTokenUpdates,
    TooManyRequests,
    InternalServerError,
    ServiceUnavailable,
    Shutdown,
];

/// Status and meaning (Apple, "Handling notification responses from APNs").
fn meaning(reason: &ErrorReason) -> (u16, Outcome) {
    use Outcome as O;
    match reason {
        // Apple: never try again with this token.
        BadDeviceToken => (400, O::AddressGone),
        Unregistered => (410, O::AddressGone),
        // The sender's configuration, not the device and not the text.
        BadTopic | DeviceTokenNotForTopic | MissingTopic | TopicDisallowed => {
            (400, O::Misconfigured)
        }
        BadCollapseId | BadExpirationDate | BadMessageId | BadPriority | DuplicateHeaders
        | MissingDeviceToken | PayloadEmpty => (400, O::MessageInvalid),
        BadPath => (404, O::MessageInvalid),
        MethodNotAllowed => (405, O::MessageInvalid),
        PayloadTooLarge => (413, O::MessageInvalid),
        BadCertificate
        | BadCertificateEnvironment
        | ExpiredProviderToken
        | Forbidden
        | InvalidProviderToken
        | MissingProviderToken => (403, O::AuthFailed),
        TooManyProviderTokenUpdates | TooManyRequests => (429, O::Throttled),
        // Not the push's fault: this connection, or this server.
        IdleTimeout => (400, O::Unavailable),
        InternalServerError => (500, O::Unavailable),
        ServiceUnavailable | Shutdown => (503, O::Unavailable),
    }
}

pub async fn compare(report: &mut Report) {
    let (endpoint, ca, _stand_in) = stand_in().await;
    let provider = ours::apns(Some(endpoint), Some(ca));
    let shown = Notification { title: Some("Paid".into()), ..Notification::default() };
    let push = ours::push(Some(shown), &[], None);
    for reason in ALL {
        let (status, outcome) = meaning(&reason);
        // The name as `a2` reads it from Apple's body.
        let name = format!("{reason:?}");
        let read: ErrorReason =
            serde_json::from_value(json!(name)).expect("a2 reads its own names");
        assert_eq!(read, reason);
        let token: String =
            format!("{status} {name}").bytes().map(|byte| format!("{byte:02x}")).collect();
        let call = ours::call(&*provider, &push, &[("token", &token)]);
        let answer = provider.send(&call).await;
        report.same(
            &name,
            &json!([answer.outcome.word(), answer.status, answer.code]),
            &json!([outcome.word(), status, name]),
        );
        if reason == Unregistered {
            report.same("the timestamp", &json!(answer.gone_at), &json!(GONE_AT));
        }
    }
    provider.close().await;
}

const GONE_AT: u64 = 1_508_249_865_488;

/// APNs as far as it answers what the token says, in hex: a status and a reason.
/// It ends with the set.
async fn stand_in() -> (url::Url, String, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("it has cipher suites")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("they fit");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (status, body) = said(request.uri().path());
                    let head = http::Response::builder().status(status).body(()).expect("a status");
                    if let Ok(mut stream) = respond.send_response(head, false) {
                        let _ = stream.send_data(Bytes::from(body.to_string()), true);
                    }
                }
            });
        }
    });
    let url = format!("https://localhost:{port}").parse().expect("a URL");
    (url, made.cert.pem(), serving)
}

fn said(path: &str) -> (u16, Value) {
    let hex = path.rsplit('/').next().unwrap_or_default();
    let bytes =
        (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok());
    let text = String::from_utf8(bytes.collect()).unwrap_or_default();
    let (status, reason) = text.split_once(' ').unwrap_or(("500", ""));
    let mut body = json!({ "reason": reason });
    if reason == "Unregistered" {
        body["timestamp"] = GONE_AT.into();
    }
    (status.parse().unwrap_or(500), body)
}
