//! The token's life against a token endpoint that answers as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Issuer, TokenSource};
use crate::auth::metadata::MetadataServer;
use crate::auth::service_account::ServiceAccount;
use crate::auth::service_account::tests::key_file;
use crate::clock::Clock;
use crate::http::client::{Client, ClientSettings};
use crate::{Outcome, Processed, Secret};

/// Tue, 14 Nov 2023 22:13:20 GMT.
const NOW_MS: u64 = 1_700_000_000_000;

/// A clock that stands until it is moved.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(NOW_MS.into()))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A token endpoint over plain HTTP/1.1. Tokens are `token-1`, `token-2`, … unless
/// another answer has been prescribed.
pub(crate) struct TokenServer {
    pub(crate) uri: String,
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

struct Script {
    calls: AtomicUsize,
    forms: Mutex<Vec<String>>,
    answers: Mutex<VecDeque<String>>,
    /// A permit for each answer.
    gate: Semaphore,
}

impl TokenServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/token", listener.local_addr().unwrap());
        let script = Arc::new(Script {
            calls: AtomicUsize::new(0),
            forms: Mutex::default(),
            answers: Mutex::default(),
            gate: Semaphore::new(1_000_000),
        });
        let mut tasks = JoinSet::new();
        let accepting = Arc::clone(&script);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&accepting);
                connections.spawn(async move {
                    let _ = script.serve(stream).await;
                });
            }
        });
        Self { uri, script, _tasks: tasks }
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls.load(Ordering::SeqCst)
    }

    /// The next call is answered so, in place of a token.
    pub(crate) fn prescribe(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        self.script.answers.lock().unwrap().push_back(format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        ));
    }

    /// From now on each answer waits for [`Self::release`].
    pub(crate) fn hold(&self) {
        self.script.gate.forget_permits(1_000_000);
    }

    pub(crate) fn release(&self) {
        self.script.gate.add_permits(1);
    }

    pub(crate) async fn called(&self, times: usize) {
        while self.calls() < times {
            tokio::task::yield_now().await;
        }
    }
}

impl Script {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let form = read_form(&mut stream).await?;
            self.forms.lock().unwrap().push(form);
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            self.gate.acquire().await.unwrap().forget();
            let prescribed = self.answers.lock().unwrap().pop_front();
            let answer = prescribed.unwrap_or_else(|| {
                let body = format!(
                    r#"{{"access_token":"token-{call}","expires_in":3600,"token_type":"Bearer"}}"#
                );
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            });
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

async fn read_form(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                })
                .unwrap_or(0);
            if body.len() >= length {
                return Ok(text);
            }
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

fn source(uri: &str, clock: &Arc<TestClock>) -> TokenSource {
    let file = Secret::new(key_file(uri).to_string());
    let account = Box::new(ServiceAccount::parse(&file).ok().unwrap());
    source_of(Issuer::Account { account, scope: "scope" }, clock)
}

fn source_of(issuer: Issuer, clock: &Arc<TestClock>) -> TokenSource {
    let client = Client::new(ClientSettings {
        ca: None,
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
    });
    TokenSource::new(issuer, client.unwrap(), Arc::<TestClock>::clone(clock))
}

async fn text(source: &TokenSource) -> String {
    source.token().await.unwrap().authorization.to_str().unwrap().to_owned()
}

/// Waits until a renewal in the background has ended.
async fn settled(source: &TokenSource) {
    let flight = source.shared.state().flight.clone();
    if let Some(mut flight) = flight {
        let _ = flight.wait_for(Option::is_some).await;
    }
}

#[tokio::test]
async fn a_thousand_callers_make_one_call() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    let tokens = join_all((0..1000).map(|_| text(&source))).await;
    assert!(tokens.iter().all(|token| token == "Bearer token-1"));
    assert_eq!(server.calls(), 1);
    let form = server.script.forms.lock().unwrap()[0].clone();
    assert!(form.contains("content-type: application/x-www-form-urlencoded"), "{form}");
    assert!(
        form.contains(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJ"
        ),
        "{form}"
    );
}

#[tokio::test]
async fn an_ageing_token_is_used_while_one_renewal_runs() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    text(&source).await;
    clock.advance(2879);
    text(&source).await;
    assert_eq!(server.calls(), 1);
    clock.advance(1);
    server.hold();
    for _ in 0..100 {
        assert_eq!(text(&source).await, "Bearer token-1");
    }
    server.called(2).await;
    server.release();
    settled(&source).await;
    assert_eq!(text(&source).await, "Bearer token-2");
    assert_eq!(source.token().await.unwrap().generation, 2);
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn a_token_serves_to_its_end_while_the_endpoint_is_down() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    text(&source).await;
    clock.advance(3000);
    server.prescribe("503 Service Unavailable", "", "");
    for _ in 0..100 {
        assert_eq!(text(&source).await, "Bearer token-1");
    }
    settled(&source).await;
    assert_eq!(server.calls(), 2, "the back-off keeps the endpoint in peace");
    clock.advance(599);
    server.prescribe("503 Service Unavailable", "", "");
    assert_eq!(text(&source).await, "Bearer token-1");
    settled(&source).await;
    clock.advance(1);
    let refusal = source.token().await.unwrap_err();
    assert_eq!((refusal.outcome, refusal.processed), (Outcome::Unavailable, Processed::No));
    assert_eq!(refusal.code.as_deref(), Some("oauth_unavailable"));
}

#[tokio::test]
async fn after_a_failure_callers_fail_at_once_until_the_back_off_ends() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    for failures in 1..=8_u32 {
        server.prescribe("500 Internal Server Error", "", "");
        for _ in 0..10 {
            assert_eq!(source.token().await.unwrap_err().status, Some(500));
        }
        assert_eq!(server.calls() as u32, failures);
        // 1, 2, 4 … 60 s and up to a quarter more.
        let backoff = (1_u64 << (failures - 1)).min(60);
        clock.advance(backoff - 1);
        assert!(source.token().await.is_err());
        assert_eq!(server.calls() as u32, failures);
        clock.advance(backoff / 4 + 2);
    }
    text(&source).await;
}

#[tokio::test]
async fn a_clock_set_back_does_not_prolong_the_back_off() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    server.prescribe("500 Internal Server Error", "", "");
    assert!(source.token().await.is_err());
    clock.0.fetch_sub(3_600_000, Ordering::SeqCst);
    assert_eq!(text(&source).await, "Bearer token-2");
}

#[tokio::test]
async fn refusals_of_the_token_endpoint_have_their_classes() {
    use Outcome::{AuthFailed, Throttled, Unavailable};
    const GRANT: &str = r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#;
    const ECHO: &str = r#"{"error":"invalid_grant","error_description":"eyJhbGciOi"}"#;
    const NO_TOKEN: &str = r#"{"expires_in":3599}"#;
    const NO_HEADER: &str = r#"{"access_token":"a\nb"}"#;
    let skewed = "date: Tue, 14 Nov 2023 22:03:20 GMT\r\n";
    let exact = "date: Tue, 14 Nov 2023 22:12:30 GMT\r\n";
    for (status, headers, body, outcome, code, detail) in [
        (
            "400 Bad Request",
            exact,
            GRANT,
            AuthFailed,
            "invalid_grant",
            "token endpoint: answered 400 invalid_grant: Invalid JWT Signature.",
        ),
        (
            "400 Bad Request",
            skewed,
            GRANT,
            AuthFailed,
            "invalid_grant",
            "token endpoint: the local clock is 600 s ahead of the token endpoint's; \
          answered 400 invalid_grant: Invalid JWT Signature.",
        ),
        (
            "400 Bad Request",
            "",
            ECHO,
            AuthFailed,
            "invalid_grant",
            "token endpoint: answered 400 invalid_grant",
        ),
        (
            "401 Unauthorized",
            "",
            r#"{"error":"invalid_client"}"#,
            AuthFailed,
            "invalid_client",
            "token endpoint: answered 401 invalid_client",
        ),
        (
            "403 Forbidden",
            "",
            "<html>",
            AuthFailed,
            "oauth_refused",
            "token endpoint: answered 403",
        ),
        (
            "429 Too Many Requests",
            "retry-after: 120\r\n",
            "",
            Throttled,
            "oauth_throttled",
            "token endpoint: answered 429",
        ),
        (
            "503 Service Unavailable",
            "",
            "<html>",
            Unavailable,
            "oauth_unavailable",
            "token endpoint: answered 503",
        ),
        (
            "302 Found",
            "location: http://elsewhere.example/\r\n",
            "",
            Unavailable,
            "oauth_unavailable",
            "token endpoint: answered 302",
        ),
        (
            "200 OK",
            "",
            "<html>",
            Unavailable,
            "oauth_unavailable",
            "token endpoint: answered 200 without a token that can be read",
        ),
        (
            "200 OK",
            "",
            NO_TOKEN,
            Unavailable,
            "oauth_unavailable",
            "token endpoint: answered 200 without a token that can be read",
        ),
        (
            "200 OK",
            "",
            NO_HEADER,
            Unavailable,
            "oauth_unavailable",
            "token endpoint: answered 200 without a token that can be read",
        ),
    ] {
        let (server, clock) = (TokenServer::start().await, TestClock::new());
        server.prescribe(status, headers, body);
        let source = source(&server.uri, &clock);
        let refusal = source.token().await.unwrap_err();
        assert_eq!(refusal.outcome, outcome, "{status} {body}");
        assert_eq!(refusal.code.as_deref(), Some(code), "{status} {body}");
        assert_eq!(refusal.detail.as_deref(), Some(detail));
        assert_eq!((refusal.processed, refusal.refreshable), (Processed::No, false));
    }
}

#[tokio::test]
async fn a_wait_that_the_endpoint_asks_for_is_kept_and_told() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    server.prescribe("429 Too Many Requests", "retry-after: 120\r\n", "");
    assert_eq!(source.token().await.unwrap_err().retry_after, Some(Duration::from_secs(120)));
    clock.advance(100);
    assert_eq!(source.token().await.unwrap_err().retry_after, Some(Duration::from_secs(20)));
    clock.advance(20);
    assert_eq!(text(&source).await, "Bearer token-2");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_unavailable() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = source(&format!("http://{gone}/token"), &TestClock::new());
    let refusal = source.token().await.unwrap_err();
    assert_eq!((refusal.outcome, refusal.processed), (Outcome::Unavailable, Processed::No));
    assert!(refusal.detail.as_deref().unwrap().starts_with("token endpoint: connect: "));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_all_who_held_it() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    let used = source.token().await.unwrap().generation;
    assert!(join_all((0..100).map(|_| source.refresh(used))).await.into_iter().all(|taken| taken));
    assert_eq!(server.calls(), 2);
    assert_eq!(text(&source).await, "Bearer token-2");
    // The new one refused as well: the fault is not the token.
    assert!(!source.refresh(2).await);
    assert_eq!(text(&source).await, "Bearer token-2");
    clock.advance(60);
    assert!(source.refresh(2).await);
    assert_eq!(server.calls(), 3);
}

#[tokio::test]
async fn refreshing_before_the_first_push_fetches_a_token() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    assert!(source.refresh(0).await && source.refresh(0).await);
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_refused_token_is_not_used_again_when_no_other_can_be_got() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    text(&source).await;
    server.prescribe("400 Bad Request", "", r#"{"error":"invalid_grant"}"#);
    assert!(!source.refresh(1).await);
    assert_eq!(source.token().await.unwrap_err().outcome, Outcome::AuthFailed);
    assert_eq!(server.calls(), 2);
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_call_to_the_others() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    server.hold();
    {
        let first = std::pin::pin!(source.token());
        tokio::select! {
            _ = first => panic!("answered too early"),
            () = server.called(1) => {}
        }
    }
    server.release();
    assert_eq!(text(&source).await, "Bearer token-1");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn closing_ends_a_call_under_way() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let source = source(&server.uri, &clock);
    server.hold();
    let (token, ()) = tokio::join!(source.token(), async {
        server.called(1).await;
        source.close().await;
    });
    assert_eq!(token.unwrap_err().outcome, Outcome::Unavailable);
}

#[tokio::test]
async fn metadata_server_gives_tokens_and_others_in_its_place_do_not() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let place = server.uri.strip_suffix("/token").unwrap();
    let metadata = MetadataServer::new(Some(place), "scope").unwrap();
    let source = source_of(Issuer::Metadata(metadata), &clock);
    let token = r#"{"access_token":"of-the-machine","expires_in":600,"token_type":"Bearer"}"#;
    server.prescribe("200 OK", "metadata-flavor: Google\r\n", token);
    let tokens = join_all((0..100).map(|_| text(&source))).await;
    assert!(tokens.iter().all(|token| token == "Bearer of-the-machine"));
    assert_eq!(server.calls(), 1);
    let request = server.script.forms.lock().unwrap()[0].clone();
    assert!(request.starts_with(
        "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=scope HTTP/1.1"
    ));
    assert!(request.contains("metadata-flavor: Google"), "{request}");

    clock.advance(600);
    let refusal = source.token().await.unwrap_err();
    assert_eq!((refusal.outcome, refusal.unexpected), (Outcome::Unavailable, true));
    assert_eq!(server.calls(), 2, "a captive portal's answer is no token");
}

#[tokio::test]
async fn machine_without_an_account_is_refused_by_name() {
    let (server, clock) = (TokenServer::start().await, TestClock::new());
    let place = server.uri.strip_suffix("/token").unwrap();
    let metadata = MetadataServer::new(Some(place), "scope").unwrap();
    let source = source_of(Issuer::Metadata(metadata), &clock);
    server.prescribe("404 Not Found", "metadata-flavor: Google\r\n", "not found");
    let refusal = source.token().await.unwrap_err();
    assert_eq!((refusal.outcome, refusal.status), (Outcome::AuthFailed, Some(404)));
}
