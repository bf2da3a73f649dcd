//! A world to test in: a simulator in this process, a router in its own, and a
//! client. Tests wait for conditions, never for a while.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pushyard_simulator::{Settings, Simulator};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A simulator, a folder, and a configuration for a router in it.
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let simulator = pushyard_simulator::start(Settings::in_dir(dir.path())).await.unwrap();
        let world = Self { simulator, dir };
        world.configure("");
        world
    }

    /// Writes a configuration with both vendors, APNs before FCM, and `more` at
    /// its end.
    pub(crate) fn configure(&self, more: &str) {
        let vendors = &self.simulator.announcement().vendors;
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
path = "data"
[[providers]]
id = "apns"
kind = "apns"
team_id = "SIMTEAM001"
key_id = "SIMKEY0001"
key = {{ file = "AuthKey_SIMKEY0001.p8" }}
app = "com.example.app"
endpoint = "{apns}"
ca_file = "ca.pem"
[[providers]]
id = "fcm"
kind = "fcm"
service_account = {{ file = "service-account.json" }}
endpoint = "{fcm}"
ca_file = "ca.pem"
[[routes]]
name = "default"
tiers = [["apns"], ["fcm"]]
{more}
"#,
            apns = vendors["apns"],
            fcm = vendors["fcm"],
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("router.toml")
    }

    pub(crate) fn router(&self) -> Router {
        Router::start(&self.config())
    }
}

/// The real binary, running.
pub(crate) struct Router {
    child: Child,
    api: String,
    admin: String,
    stream: String,
    log: Arc<Mutex<String>>,
    client: reqwest::Client,
    key: Option<&'static str>,
}

/// The binary under test.
pub(crate) fn pushyard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushyard"));
    command.env_remove("RUST_LOG").env_remove("PUSHYARD_KEY").env_remove("PUSHYARD_URL");
    command
}

impl Router {
    pub(crate) fn start(config: &Path) -> Self {
        let mut child = pushyard()
            .args(["serve", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(ready) = line.strip_prefix("listening ") else {
            let _ = child.wait();
            panic!("the router did not start: {line:?}\n{}", log.lock().unwrap());
        };
        let ready: Value = serde_json::from_str(ready).unwrap();
        let url = |name: &str| format!("http://{}", ready[name].as_str().unwrap_or_default());
        let client = client();
        Self {
            child,
            api: url("api"),
            admin: url("admin"),
            stream: url("stream"),
            log,
            client,
            key: None,
        }
    }

    /// Calls bear this key from now on.
    pub(crate) fn with_key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// Its listeners speak TLS, and calls trust this certificate (PEM) from now on.
    pub(crate) fn with_tls(mut self, certificate: &str) -> Self {
        let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
        self.client = client_builder().tls_certs_only([root]).build().unwrap();
        for url in [&mut self.api, &mut self.admin] {
            *url = url.replacen("http://", "https://", 1);
        }
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn api(&self) -> &str {
        &self.api
    }

    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// The devices' listener, where it is configured.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its log, also after its end.
    pub(crate) fn watch_log(&self) -> Arc<Mutex<String>> {
        self.log.clone()
    }

    /// As kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        // The simulator lives on this thread: it must go on meanwhile.
        let waiting = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code());
        waiting.await.unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let base = if path.starts_with("/v1") { &self.api } else { &self.admin };
        let mut request = self.client.request(method, format!("{base}{path}"));
        if let Some(key) = self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {value}");
        value
    }

    /// Sends a message that must be accepted.
    pub(crate) async fn accept(&self, message: &Value) -> Value {
        let (status, value) = self.call(Method::POST, "/v1/messages", Some(message)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{value}");
        value
    }

    /// Sends a message and waits until it is settled.
    pub(crate) async fn settle(&self, message: &Value) -> Value {
        let path = "/v1/messages?wait=20s";
        let (status, value) = self.call(Method::POST, path, Some(message)).await;
        assert_eq!(status, StatusCode::OK, "{value}\n{}", self.log());
        value
    }

    /// Asks until `enough` says so.
    pub(crate) async fn until(&self, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let (_, value) = self.call(Method::GET, path, None).await;
                if enough(&value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(value) => value,
            Err(_) => {
                let (_, value) = self.call(Method::GET, path, None).await;
                panic!("{path} never became what the test waits for: {value}\n{}", self.log())
            }
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    client_builder().build().unwrap()
}

pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    // The library takes whatever provider the process has installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// An APNs device token whose text the simulator reads in hex.
pub(crate) fn apns(text: &str) -> Value {
    let token: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    json!({"kind": "apns", "token": token})
}

pub(crate) fn fcm(token: &str) -> Value {
    json!({"kind": "fcm", "token": token})
}

/// A message to one recipient.
pub(crate) fn message(addresses: &[Value]) -> Value {
    json!({"to": [{"addresses": addresses}], "notification": {"title": "Paid", "body": "Order 7"}})
}

/// The only delivery of a view.
pub(crate) fn only(view: &Value) -> &Value {
    let items = view["deliveries"]["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{view}");
    &items[0]
}

/// Runs a command of the binary to its end: exit code, stdout, stderr.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut child = pushyard()
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stdout, stderr)
}
