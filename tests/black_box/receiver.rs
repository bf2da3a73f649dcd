//! A backend's server for signed webhooks, in this process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::task::JoinSet;

use super::harness::PATIENCE;

/// 24 bytes, as the specification's own example.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Takes what is signed with [`SECRET`], and notes it.
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Vec<(String, Value)>>,
    /// Answers that are given first.
    refusals: Mutex<VecDeque<u16>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new().route("/hook", post(take)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, _serving: serving }
    }

    /// The next requests are answered so.
    pub(crate) fn refuse(&self, statuses: &[u16]) {
        self.shared.refusals.lock().unwrap().extend(statuses);
    }

    /// What was taken so far: ids and bodies.
    pub(crate) fn taken(&self) -> Vec<(String, Value)> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// Waits until what was taken is enough.
    pub(crate) async fn until(&self, enough: impl Fn(&[(String, Value)]) -> bool) {
        let waiting = async {
            while !enough(&self.taken()) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("the events never came: {:?}", self.taken());
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Some(status) = shared.refusals.lock().unwrap().pop_front() {
        return StatusCode::from_u16(status).unwrap();
    }
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let signature = header("webhook-signature");
    let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
    if hmac::verify(&key, &signed, &signature).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let value = serde_json::from_slice(&body).unwrap();
    shared.taken.lock().unwrap().push((id, value));
    StatusCode::NO_CONTENT
}
