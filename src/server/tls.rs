//! The listeners' certificates while they run.
//!
//! A handshake takes the certificate that is in force at its moment, so that an
//! exchange touches no connection. A reload exchanges them; a renewal without one
//! (ACME clients write files and tell nobody) is found by looking at the files.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::{Settings, SystemSources, Tls};

/// The files are looked at this often.
pub(super) const LOOK: Duration = Duration::from_secs(60);

/// The certificate of one listener, exchanged as a whole.
#[derive(Debug)]
pub(super) struct Certificate(ArcSwap<CertifiedKey>);

/// Those of the listeners that have one.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) server: Option<Arc<Certificate>>,
    pub(super) admin: Option<Arc<Certificate>>,
    pub(super) stream: Option<Arc<Certificate>>,
}

impl Certificate {
    pub(super) fn new(tls: &Tls) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(tls.certified.clone())))
    }

    /// Takes handshakes with whatever certificate is in force, for HTTP/2 and
    /// HTTP/1.1 (RFC 7301; RFC 9113, section 3.2).
    pub(super) fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        // Named here, as towards vendors: nothing depends on a process default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("this provider has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn exchange(&self, tls: &Tls) {
        self.0.store(tls.certified.clone());
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// As configured.
    pub(super) fn new(settings: &Settings) -> Self {
        let [server, admin, stream] =
            identities(settings).map(|(_, tls)| tls.as_ref().map(Certificate::new));
        Self { server, admin, stream }
    }

    /// Whether there is a file to look at.
    pub(super) fn any(&self) -> bool {
        self.server.is_some() || self.admin.is_some() || self.stream.is_some()
    }

    /// Handshakes from now on get these. A listener that began without TLS stays so.
    pub(super) fn exchange(&self, settings: &Settings) {
        let at = [&self.server, &self.admin, &self.stream];
        for (at, (_, tls)) in at.into_iter().zip(identities(settings)) {
            if let (Some(at), Some(tls)) = (at, tls) {
                at.exchange(tls);
            }
        }
    }
}

/// Whom the listeners prove to be, each with its key in the file.
pub(super) fn identities(settings: &Settings) -> [(&'static str, &Option<Tls>); 3] {
    let Settings { server, admin, stream_tls, .. } = settings;
    [("server.tls", &server.tls), ("admin.tls", &admin.tls), ("stream.tls", stream_tls)]
}

/// Reads the certificates' files again, and keeps what there was where they cannot
/// be used.
pub(super) async fn renew_all(settings: &mut Settings) {
    let Settings { server, admin, stream_tls, .. } = settings;
    renew("server.tls", &mut server.tls).await;
    renew("admin.tls", &mut admin.tls).await;
    renew("stream.tls", stream_tls).await;
}

async fn renew(key: &str, tls: &mut Option<Tls>) {
    let Some(known) = tls.clone() else { return };
    let reading = tokio::task::spawn_blocking({
        let known = known.clone();
        move || known.read_again(&SystemSources)
    });
    match reading.await.expect("reading returns its faults as errors") {
        Ok(read) if read != known => {
            info!("{key}: the certificate was renewed");
            *tls = Some(read);
        }
        Ok(_) => {}
        Err(detail) => warn!("{key}: the certificate stays: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(tls: &Tls) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&tls.cert, made.cert.pem()).unwrap();
        fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(vec![made.cert.der().clone()], key.into(), &provider).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let first = Tls { cert, key, certified: Arc::new(certified) };

        let mut known = Some(first.clone());
        renew("server.tls", &mut known).await;
        assert_eq!(known.as_ref(), Some(&first), "there are no files");
        write(&first);
        renew("server.tls", &mut known).await;
        let second = known.clone().unwrap();
        assert_ne!(second, first);
        fs::write(&first.key, made.signing_key.serialize_pem()).unwrap();
        renew("server.tls", &mut known).await;
        assert_eq!(known.as_ref(), Some(&second), "certificate and key do not fit");

        let certificate = Certificate::new(&first);
        certificate.exchange(&second);
        assert_eq!(certificate.0.load_full().cert, second.certified.cert);
    }
}
