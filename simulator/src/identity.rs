//! Who the simulated vendors are: their certificate authority, and the
//! credentials that the router is given for them.
//!
//! All of it is made here, at the first start, and found again at the next, so
//! that a router which was configured against a simulator keeps working when
//! that is restarted. Only what names a port is written anew each time: the
//! service account's `token_uri`, and the router's configuration. The server's
//! own certificate is not kept; the authority signs a fresh one at each start.
//!
//! A further APNs key is registered by putting it beside the others, as
//! `AuthKey_<key id>.p8`, before the start. One is there already as a spare: it
//! stays good when the vendor takes keys no more, so that a router can be given it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use crate::vendor::ntfy::TOKEN as NTFY_TOKEN;

/// The team that all simulated APNs keys belong to.
pub(crate) const TEAM_ID: &str = "SIMTEAM001";
/// The key that is always registered.
pub(crate) const KEY_ID: &str = "SIMKEY0001";
/// The spare key, which `unauthorised` does not revoke.
pub(crate) const SPARE_KEY_ID: &str = "SIMSPARE01";
/// The application: the topic of the client certificate, and the router's
/// default topic.
pub(crate) const APP: &str = "com.example.app";
/// The one Firebase project that exists.
pub(crate) const PROJECT: &str = "simulated-project";
/// The service account that may send for it.
pub(crate) const ACCOUNT: &str = "router@simulated-project.iam.gserviceaccount.com";

/// Object identifier of the subject attribute `UID` (RFC 4519, section 2.39),
/// where an APNs certificate has its topic.
pub(crate) const UID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];

/// The public halves of everything, and the server's certificate.
pub(crate) struct Identity {
    pub(crate) ca_file: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) server_chain: Vec<CertificateDer<'static>>,
    pub(crate) server_key: PrivateKeyDer<'static>,
    /// Key id to P-256 public key (uncompressed point).
    pub(crate) apns_keys: BTreeMap<String, Vec<u8>>,
    /// The service account's public key (PKCS#1 DER).
    pub(crate) account_key: Vec<u8>,
    account_pem: String,
    /// `whsec_…`: the present secret, and the one before it.
    pub(crate) webhook_secrets: Vec<String>,
}

impl Identity {
    /// Finds the identity in `dir`, and makes what is missing.
    pub(crate) fn prepare(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let ca_key = ec_key(&dir.join("ca.key"))?;
        let ca_params = authority();
        let ca_file = dir.join("ca.pem");
        if !ca_file.exists() {
            let ca = ca_params.self_signed(&ca_key).map_err(io::Error::other)?;
            fs::write(&ca_file, ca.pem())?;
        }
        let ca = CertificateDer::from_pem_file(&ca_file).map_err(io::Error::other)?;
        let issuer = Issuer::from_params(&ca_params, &ca_key);

        let server_key = KeyPair::generate().map_err(io::Error::other)?;
        let server =
            server_certificate()?.signed_by(&server_key, &issuer).map_err(io::Error::other)?;
        client_certificate(dir, &issuer)?;
        for id in [KEY_ID, SPARE_KEY_ID] {
            ec_key(&dir.join(format!("AuthKey_{id}.p8")))?;
        }
        let (account_pem, account_key) = account_key(&dir.join("service-account.json"))?;
        Ok(Self {
            ca_file,
            ca,
            server_chain: vec![server.der().clone()],
            server_key: PrivatePkcs8KeyDer::from(server_key.serialize_der()).into(),
            apns_keys: apns_keys(dir)?,
            account_key,
            account_pem,
            webhook_secrets: vec![
                webhook_secret(&dir.join("webhook.secret"))?,
                webhook_secret(&dir.join("webhook-old.secret"))?,
            ],
        })
    }

    /// Writes what names ports: the service account and the router's
    /// configuration. Answers the configuration's path.
    pub(crate) fn write_files(&self, dir: &Path, router: &Router<'_>) -> io::Result<PathBuf> {
        let account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "simulated-key-1",
            "private_key": self.account_pem,
            "client_email": ACCOUNT,
            "client_id": "100000000000000000001",
            "token_uri": format!("{}/token", router.fcm),
        });
        write_secret(&dir.join("service-account.json"), format!("{account:#}\n").as_bytes())?;
        let path = dir.join("pushyard.toml");
        fs::write(&path, router.toml())?;
        Ok(path)
    }
}

/// What the generated configuration needs to know.
pub(crate) struct Router<'a> {
    pub(crate) api_listen: &'a str,
    pub(crate) admin_listen: &'a str,
    pub(crate) apns: &'a str,
    pub(crate) apns_broadcast: &'a str,
    pub(crate) fcm: &'a str,
    pub(crate) ntfy: &'a str,
    pub(crate) gotify: &'a str,
    pub(crate) webhook: &'a str,
}

impl Router<'_> {
    fn toml(&self) -> String {
        let Self { api_listen, admin_listen, apns, apns_broadcast, fcm, ntfy, gotify, webhook } =
            self;
        // Debug output of a string is a valid TOML basic string for the plain
        // addresses and URLs that stand here.
        format!(
            r#"# Made by the vendor simulator at each start: a router for all simulated vendors.
[server]
listen = {api_listen:?}

[admin]
listen = {admin_listen:?}

[store]
path = "data"

[[providers]]
id = "apns"
kind = "apns"
team_id = "{TEAM_ID}"
key_id = "{KEY_ID}"
key = {{ file = "AuthKey_{KEY_ID}.p8" }}
app = "{APP}"
endpoint = {apns:?}
broadcast_endpoint = {apns_broadcast:?}
ca_file = "ca.pem"

[[providers]]
id = "fcm"
kind = "fcm"
service_account = {{ file = "service-account.json" }}
endpoint = {fcm:?}
ca_file = "ca.pem"

[[providers]]
id = "ntfy"
kind = "ntfy"
token = "{NTFY_TOKEN}"
endpoint = {ntfy:?}
ca_file = "ca.pem"

[[providers]]
id = "gotify"
kind = "gotify"
endpoint = {gotify:?}
ca_file = "ca.pem"

[[providers]]
id = "webhook"
kind = "webhook"
secret = {{ file = "webhook.secret" }}
endpoint = "{webhook}/push"
ca_file = "ca.pem"

[[routes]]
name = "default"
tiers = [["apns"], ["fcm"], ["ntfy", "gotify", "webhook"]]
balance = "least_latency"
"#
        )
    }
}

/// The authority's certificate is a function of its key and of this, so that a
/// restart can sign with it without parsing the certificate again.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Pushyard simulator CA");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params
}

fn server_certificate() -> io::Result<CertificateParams> {
    let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "Pushyard simulator");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The certificate for APNs' older way to log in; it is made once, and again
/// when one of its two files is gone.
fn client_certificate(dir: &Path, issuer: &Issuer<'_, &KeyPair>) -> io::Result<()> {
    let (certificate, key) = (dir.join("apns-client.pem"), dir.join("apns-client.key"));
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CustomDnType(UID.to_vec()), APP);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Apple Push Services: {APP}").as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().map_err(io::Error::other)?;
    let signed = params.signed_by(&pair, issuer).map_err(io::Error::other)?;
    write_secret(&key, pair.serialize_pem().as_bytes())?;
    fs::write(certificate, signed.pem())
}

/// The P-256 key in `path`, made when there is none.
fn ec_key(path: &Path) -> io::Result<KeyPair> {
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| named(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(io::Error::other)?;
            write_secret(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// The secret in `path`, made when there is none.
fn webhook_secret(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(secret) => Ok(secret.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = format!("whsec_{}", STANDARD.encode(rand::random::<[u8; 32]>()));
            write_secret(path, format!("{secret}\n").as_bytes())?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

fn apns_keys(dir: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let key_id = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("AuthKey_")?.strip_suffix(".p8"))
            .map(str::to_owned);
        if let Some(key_id) = key_id {
            keys.insert(key_id, ec_key(&path)?.public_key_raw().to_vec());
        }
    }
    Ok(keys)
}

/// The service account's key: PKCS#8 PEM and public half.
fn account_key(path: &Path) -> io::Result<(String, Vec<u8>)> {
    let kept = match fs::read(path) {
        Ok(bytes) => {
            let account: serde_json::Value =
                serde_json::from_slice(&bytes).map_err(|error| named(path, error))?;
            let pem = account["private_key"].as_str();
            Some(pem.ok_or_else(|| named(path, "no private_key in it"))?.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let pem = match kept {
        Some(pem) => pem,
        None => {
            let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(io::Error::other)?;
            let der = key.as_der().map_err(io::Error::other)?;
            private_key_pem(der.as_ref())
        }
    };
    let der =
        PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| named(path, error))?;
    let key =
        rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|error| named(path, error))?;
    Ok((pem, key.public_key().as_ref().to_vec()))
}

fn private_key_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// Replaces a file that only its owner may read.
fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

fn named(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn second_start_finds_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::prepare(dir.path()).unwrap();
        let router = Router {
            api_listen: "127.0.0.1:1",
            admin_listen: "127.0.0.1:2",
            apns: "https://127.0.0.1:3",
            apns_broadcast: "https://127.0.0.1:8",
            fcm: "https://127.0.0.1:4",
            ntfy: "https://127.0.0.1:5",
            gotify: "https://127.0.0.1:6",
            webhook: "https://127.0.0.1:7",
        };
        first.write_files(dir.path(), &router).unwrap();
        let second = Identity::prepare(dir.path()).unwrap();
        assert_eq!(first.ca, second.ca);
        assert_eq!(first.apns_keys, second.apns_keys);
        assert_eq!(first.account_key, second.account_key);
    }

    #[test]
    fn private_keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        Identity::prepare(dir.path()).unwrap();
        for name in ["ca.key", "AuthKey_SIMKEY0001.p8", "apns-client.key", "webhook.secret"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
    }
}
