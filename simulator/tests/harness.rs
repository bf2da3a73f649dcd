//! A simulator in a folder of its own, and clients that show what an ordinary
//! HTTP library hides: resets, GOAWAYs, stream limits.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pushyard_simulator::{Control, Settings, Simulator, VendorStatus};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running simulator.
pub(crate) struct Sim {
    pub(crate) simulator: Simulator,
    pub(crate) dir: TempDir,
}

/// Making an RSA key is the slowest part of a start, so all tests share one
/// identity; a copy of it, so that each may add to its own.
async fn identity(dir: &Path) {
    static MADE: tokio::sync::OnceCell<TempDir> = tokio::sync::OnceCell::const_new();
    let made = MADE
        .get_or_init(|| async {
            let made = tempfile::tempdir().unwrap();
            let simulator = pushyard_simulator::start(Settings::in_dir(made.path()));
            simulator.await.unwrap().shutdown().await;
            made
        })
        .await;
    for entry in std::fs::read_dir(made.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
}

impl Sim {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        identity(dir.path()).await;
        let mut settings = Settings::in_dir(dir.path());
        change(&mut settings);
        let simulator = pushyard_simulator::start(settings).await.unwrap();
        Self { simulator, dir }
    }

    pub(crate) fn control(&self) -> &Control {
        self.simulator.control()
    }

    pub(crate) fn vendor(&self, name: &str) -> VendorStatus {
        self.control().vendor(name).unwrap()
    }

    pub(crate) fn origin(&self, vendor: &str) -> &str {
        &self.simulator.announcement().vendors[vendor]
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn address(&self, vendor: &str) -> String {
        self.origin(vendor).replace("https://", "")
    }

    pub(crate) fn account(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.file("service-account.json")).unwrap()).unwrap()
    }

    pub(crate) async fn apns(&self) -> Client {
        Client::connect(self, "apns", Login::None, &[b"h2"]).await.unwrap()
    }

    /// A connection to FCM, and an access token for it.
    pub(crate) async fn fcm(&self) -> (Client, String) {
        let client = Client::connect(self, "fcm", Login::None, &[b"h2"]).await.unwrap();
        let answer = client.token(self, &Claims::good(self)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        (client, format!("Bearer {token}"))
    }

    /// An APNs push that is right in everything.
    pub(crate) fn push(&self, token: &str) -> Push {
        Push {
            path: format!("/3/device/{token}"),
            headers: vec![
                (
                    "authorization".into(),
                    bearer(&self.file("AuthKey_SIMKEY0001.p8"), "SIMKEY0001", now()),
                ),
                ("apns-topic".into(), "com.example.app".into()),
                ("apns-push-type".into(), "alert".into()),
            ],
            ..Push::default()
        }
    }
}

pub(crate) fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test signs tokens for the real clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// `bearer …` for APNs. Made once for each key and time: its signature is drawn
/// at random, and a second token would be an update.
pub(crate) fn bearer(key_file: &Path, key_id: &str, issued: u64) -> String {
    type Made = std::collections::HashMap<(Vec<u8>, String, u64), String>;
    static MADE: OnceLock<std::sync::Mutex<Made>> = OnceLock::new();
    static START: OnceLock<u64> = OnceLock::new();
    let start = *START.get_or_init(now);
    let issued = if issued.abs_diff(start) < 300 { start } else { issued };
    let pem = std::fs::read(key_file).unwrap();
    let mut made = MADE.get_or_init(Default::default).lock().unwrap();
    made.entry((pem.clone(), key_id.to_owned(), issued))
        .or_insert_with(|| {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = Some(key_id.to_owned());
            let claims = json!({"iss": "SIMTEAM001", "iat": issued});
            let key = EncodingKey::from_ec_pem(&pem).unwrap();
            format!("bearer {}", jsonwebtoken::encode(&header, &claims, &key).unwrap())
        })
        .clone()
}

pub(crate) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The claims of an assertion for the token endpoint.
pub(crate) struct Claims(pub(crate) Value);

impl Claims {
    pub(crate) fn good(sim: &Sim) -> Self {
        let account = sim.account();
        Self(json!({
            "iss": account["client_email"], "aud": account["token_uri"],
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "iat": now() - 5, "exp": now() + 3500,
        }))
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0[name] = value.into();
        self
    }

    /// The form that asks for a token.
    pub(crate) fn form(&self, sim: &Sim) -> String {
        let pem = sim.account()["private_key"].as_str().unwrap().to_owned();
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let assertion =
            jsonwebtoken::encode(&Header::new(Algorithm::RS256), &self.0, &key).unwrap();
        format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        )
    }
}

/// A request to be made.
#[derive(Clone)]
pub(crate) struct Push {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            method: "POST",
            path: "/".into(),
            headers: Vec::new(),
            body: r#"{"aps":{"alert":"hello"}}"#.into(),
        }
    }
}

impl Push {
    /// An FCM push to a token.
    pub(crate) fn fcm(bearer: &str, token: &str) -> Self {
        Self {
            path: "/v1/projects/simulated-project/messages:send".into(),
            headers: vec![
                ("authorization".into(), bearer.into()),
                ("content-type".into(), "application/json".into()),
            ],
            body: json!({"message": {"token": token, "data": {"k": "v"}}}).to_string(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// The body of a router's push: it carries the delivery's id.
    pub(crate) fn delivery(self, id: &str) -> Self {
        let pushyard = format!("{id}.0123456789abcdefghijkl");
        let body = if self.path.starts_with("/3/") {
            json!({"aps": {"alert": "hello"}, "pushyard": pushyard})
        } else {
            let mut body: Value = serde_json::from_str(&self.body).unwrap();
            body["message"]["data"]["pushyard"] = pushyard.into();
            body
        };
        self.body(body.to_string())
    }
}

/// A vendor's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The FCM error code of the typed details.
    pub(crate) fn fcm_code(&self) -> Option<String> {
        let details = self.json()["error"]["details"].clone();
        let found = details.as_array()?.iter().find_map(|detail| detail["errorCode"].as_str())?;
        Some(found.to_owned())
    }
}

/// A request that is under way; dropped, it is given up.
pub(crate) struct Begun(JoinSet<Result<Answer, h2::Error>>);

impl Begun {
    pub(crate) async fn end(mut self) -> Result<Answer, h2::Error> {
        soon(self.0.join_next()).await.unwrap().unwrap()
    }

    /// Whether it has ended, with whatever.
    pub(crate) fn has_ended(&mut self) -> bool {
        use futures_util::FutureExt as _;
        self.0.join_next().now_or_never().is_some()
    }
}

/// How a client logs in to TLS.
pub(crate) enum Login {
    None,
    Certificate { chain: PathBuf, key: PathBuf },
}

/// An HTTP/2 connection.
pub(crate) struct Client {
    send: h2::client::SendRequest<Bytes>,
    origin: String,
    limit: Arc<std::sync::atomic::AtomicUsize>,
    tasks: JoinSet<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(
        sim: &Sim,
        vendor: &str,
        login: Login,
        alpn: &[&[u8]],
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tls = tls(sim, vendor, login, alpn).await?;
        Self::over(tls, sim.origin(vendor)).await
    }

    async fn over(
        tls: tokio_rustls::client::TlsStream<TcpStream>,
        origin: &str,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // As many streams as wanted before the server's settings: the limit
        // that is tested is the server's.
        let (send, mut connection) =
            h2::client::Builder::new().initial_max_send_streams(100).handshake(tls).await?;
        let limit = Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
        let seen = Arc::clone(&limit);
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::poll_fn(move |cx| {
            let polled = std::pin::Pin::new(&mut connection).poll(cx);
            let now = connection.max_concurrent_send_streams();
            seen.store(now, std::sync::atomic::Ordering::Relaxed);
            polled
        }));
        Ok(Self { send, origin: origin.to_owned(), limit, tasks })
    }

    /// The stream limit that the server announced last.
    pub(crate) fn stream_limit(&self) -> usize {
        self.limit.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Sends a request; the future is its answer.
    pub(crate) fn start(
        &self,
        push: &Push,
    ) -> impl Future<Output = Result<Answer, h2::Error>> + Send + use<> {
        let mut request =
            Request::builder().method(push.method).uri(format!("{}{}", self.origin, push.path));
        for (name, value) in &push.headers {
            request = request.header(name, value);
        }
        let request = request.body(()).unwrap();
        let body = Bytes::from(push.body.clone());
        let sent = self.send.clone().send_request(request, false);
        async move {
            let (response, mut stream) = sent?;
            stream.send_data(body, true)?;
            let (head, mut body) = response.await?.into_parts();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                text.extend_from_slice(&data?);
            }
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: String::from_utf8(text).unwrap(),
            })
        }
    }

    /// Sends a request whose answer is waited for later.
    pub(crate) fn begin(&self, push: &Push) -> Begun {
        let mut task = JoinSet::new();
        task.spawn(self.start(push));
        Begun(task)
    }

    pub(crate) async fn send(&self, push: &Push) -> Result<Answer, h2::Error> {
        let ready = self.send.clone().ready();
        soon(ready).await?;
        soon(self.start(push)).await
    }

    pub(crate) async fn answer(&self, push: &Push) -> Answer {
        self.send(push).await.unwrap()
    }

    /// Asks for an access token.
    pub(crate) async fn token(&self, sim: &Sim, claims: &Claims) -> Answer {
        let push = Push { path: "/token".into(), ..Push::default() };
        let push =
            push.header("content-type", "application/x-www-form-urlencoded").body(claims.form(sim));
        self.answer(&push).await
    }

    /// Waits until the connection has ended.
    pub(crate) async fn closed(&mut self) -> Result<(), h2::Error> {
        soon(self.tasks.join_next()).await.unwrap().unwrap()
    }
}

pub(crate) async fn tls(
    sim: &Sim,
    vendor: &str,
    login: Login,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(sim.file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match login {
        Login::None => builder.with_no_client_auth(),
        Login::Certificate { chain, key } => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(chain).unwrap()],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = soon(TcpStream::connect(sim.address(vendor))).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// An ordinary client that trusts the simulator.
pub(crate) fn reqwest_client(sim: &Sim) -> reqwest::Client {
    // Refused when another test was first, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = std::fs::read(sim.file("ca.pem")).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
        .build()
        .unwrap()
}

/// Waits for something that has to come.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes in time")
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain until {what}");
}
