//! Tests of the configuration: what is wrong with a file, to the letter
//! (`errors`), what a good one means (`meaning`), and that the shipped example
//! tells the truth (`example`).

mod errors;
mod example;
mod meaning;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushyard_providers::Kind;
use pushyard_providers::clock::Clock;
use pushyard_providers::registry::KINDS;
use serde_json::json;

use super::{Errors, Settings, Sources, load_with};

/// Where the configuration file of these tests stands.
const PATH: &str = "conf/pushyard.toml";

/// The client's key in these tests.
const KEY: &str = "shop-key-0123456789abcdef";

/// A key file of the right shape for APNs.
static P8: LazyLock<String> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .unwrap();
    pem("PRIVATE KEY", key.as_ref())
});

/// A service account that can sign.
static SERVICE_ACCOUNT: LazyLock<String> = LazyLock::new(|| {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "client_email": "pusher@my-project.iam.gserviceaccount.com",
        "private_key": pem("PRIVATE KEY", key.as_der().unwrap().as_ref()),
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
});

/// Two certificates with their keys, PEM.
static TLS: LazyLock<[(String, String); 2]> = LazyLock::new(|| {
    std::array::from_fn(|_| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    })
});

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// An environment and a folder of files, made up.
#[derive(Default)]
struct Fake {
    env: BTreeMap<&'static str, String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Fake {
    /// All that the example refers to.
    fn whole() -> Self {
        let mut fake = Self::default();
        fake.env.insert("PUSHYARD_SHOP_KEY", KEY.to_owned());
        fake.env.insert("PUSHYARD_SHOP_KEY_OLD", "shop-key-of-before".to_owned());
        fake.env.insert("PUSHYARD_STREAM_SECRET", "a secret of many characters".to_owned());
        fake.env.insert("EMPTY", String::new());
        fake.env.insert("NTFY_TOKEN", "tk_0123456789".to_owned());
        fake.env.insert("NTFY_PASSWORD", "ntfy-password".to_owned());
        fake.env.insert("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        fake.file("AuthKey_KEYID12345.p8", P8.as_bytes());
        fake.file("service-account.json", SERVICE_ACCOUNT.as_bytes());
        fake.file("ca.pem", include_bytes!("ca.pem"));
        fake.file("cert.pem", TLS[0].0.as_bytes());
        fake.file("key.pem", TLS[0].1.as_bytes());
        fake.file("other-key.pem", TLS[1].1.as_bytes());
        fake.file("broken.pem", pem("CERTIFICATE", b"nonsense").as_bytes());
        fake.file("empty", b"\n");
        fake.file("latin1", b"caf\xe9");
        fake.file("words", b"neither PEM nor JSON");
        fake
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.files.insert(Path::new("conf").join(name), content.to_vec());
    }
}

impl Sources for Fake {
    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct Noon;

impl Clock for Noon {
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

fn load(text: &str) -> Result<Settings, Errors> {
    load_asking(text, KINDS, &RefCell::default())
}

fn load_asking(
    text: &str,
    kinds: &[&'static Kind],
    asked: &RefCell<BTreeSet<String>>,
) -> Result<Settings, Errors> {
    let mut fake = Fake::whole();
    fake.file("pushyard.toml", text.as_bytes());
    load_with(Path::new(PATH), &fake, Arc::new(Noon), kinds, asked)
}

/// A working APNs provider; more keys may follow.
const APNS: &str = r#"[[providers]]
id = "apns"
kind = "apns"
team_id = "TEAMID1234"
key_id = "KEYID12345"
key = { file = "AuthKey_KEYID12345.p8" }
app = "com.example.shop"
"#;

/// A working FCM provider; more keys may follow.
const FCM: &str = r#"[[providers]]
id = "fcm"
kind = "fcm"
service_account = { file = "service-account.json" }
"#;
