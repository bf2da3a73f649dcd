//! `tls` of a listener: a certificate chain and its key, read and checked like any
//! other credential, so that `check` finds a wrong file and not the first client.
//!
//! What was read can be read again without the rest of the configuration: a renewed
//! certificate is no reason to take up a file that somebody is editing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pushyard_providers::http::tls::certificates;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::check::Check;
use super::file;
use super::source::{Sources, unreadable};
use super::value::At;

/// The identity of a listener. Equal when the same certificates come from the same
/// files: a certificate has only one key.
#[derive(Clone)]
pub struct Tls {
    /// Where the chain was read, PEM, the listener's own certificate first.
    pub cert: PathBuf,
    /// Where its private key was read, PEM.
    pub key: PathBuf,
    /// Both, as they were found to fit.
    pub certified: Arc<CertifiedKey>,
}

impl Tls {
    /// What the same files hold now.
    ///
    /// # Errors
    /// What is wrong with them, with the file's name and without their content.
    pub fn read_again(&self, sources: &dyn Sources) -> Result<Self, String> {
        let read = |path: &PathBuf| {
            let told = |error| format!("file {} {}", path.display(), unreadable(&error));
            sources.read(path).map_err(told)
        };
        let certified =
            certified(&read(&self.cert)?, &read(&self.key)?).map_err(|bad| match bad {
                Bad::Cert(detail) => format!("file {}: {detail}", self.cert.display()),
                Bad::Key(detail) => format!("file {}: {detail}", self.key.display()),
            })?;
        Ok(Self { certified: Arc::new(certified), ..self.clone() })
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        let of = |tls: &Self| (tls.cert.clone(), tls.key.clone());
        of(self) == of(other) && self.certified.cert == other.certified.cert
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Tls");
        shown.field("cert", &self.cert).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Check<'_> {
    /// `None` also when something is wrong, which has been reported.
    pub(super) fn tls(&self, written: Option<&file::Tls>) -> Option<Tls> {
        let written = written?;
        let cert = self.required(&written.cert, &written.spot, "cert");
        let key = self.required(&written.key, &written.spot, "key");
        // Both are looked at, whatever is wrong with the one.
        let chain = cert.and_then(|at| self.pem(at));
        let private = key.and_then(|at| self.pem(at));
        let (cert, key) = (cert?, key?);
        let (cert_path, key_path) = (self.path(&cert.value), self.path(&key.value));
        match certified(&chain?, &private?) {
            Ok(certified) => {
                Some(Tls { cert: cert_path, key: key_path, certified: Arc::new(certified) })
            }
            Err(Bad::Cert(detail)) => {
                self.faults.add(&cert.spot, format!("file {}: {detail}", cert_path.display()));
                None
            }
            Err(Bad::Key(detail)) => {
                self.faults.add(&key.spot, format!("file {}: {detail}", key_path.display()));
                None
            }
        }
    }

    fn pem(&self, at: &At<String>) -> Option<Vec<u8>> {
        let bytes = self.read(at.value.as_ref(), &at.spot)?;
        if bytes.trim_ascii().is_empty() {
            let path = self.path(&at.value);
            self.faults.add(&at.spot, format!("file {} is empty", path.display()));
            return None;
        }
        Some(bytes)
    }
}

/// Which of the two is to be mended.
enum Bad {
    Cert(String),
    Key(String),
}

fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Bad> {
    let chain = certificates(chain).map_err(Bad::Cert)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Bad::Key("no private key in it; expected PEM (BEGIN PRIVATE KEY)".into()))?;
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| Bad::Key("the private key cannot be used; make an ECDSA P-256 one".into()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(Bad::Key("is not the key of the first certificate in cert".into()))
        }
        Err(_) => Err(Bad::Cert("the first certificate in it cannot be read".into())),
    }
}
