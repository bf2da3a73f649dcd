//! TLS settings towards vendors.
//!
//! Certificates are checked by the platform's verifier, so that a company's own
//! roots in the system store count, with an operator's `ca_file` added to them
//! and never instead of them. A system without any root store is no fault as
//! long as such a file is given: containers are built that way.
//!
//! The cryptography provider is named here and not taken from the process, so
//! that a library which installs another default cannot change what we offer.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::Verifier;

/// Sessions kept for resumption. A provider speaks to one origin, behind which
/// many servers may answer; beyond this a full handshake is made.
const SESSIONS: usize = 64;

/// A client configuration that trusts the system's roots and `extra_ca` (PEM),
/// offers `alpn`, and logs in with `identity` (PEM chain, PEM key) if given.
/// The cryptography provider is named explicitly: nothing depends on a process default.
///
/// # Errors
/// What in the PEM is wrong, without showing it.
pub fn client_config(
    extra_ca: Option<&[u8]>,
    alpn: &[&[u8]],
    identity: Option<(&[u8], &[u8])>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifier(extra_ca, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no usable TLS version: {error}"))?
        .dangerous() // the builder's word for any verifier but its own
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| "the private key is not PEM (BEGIN PRIVATE KEY)".to_owned())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("certificate and private key do not fit: {error}"))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// The certificates of a PEM text, at least one.
///
/// # Errors
/// What is wrong with the text, without showing it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not readable as PEM: {error}"))?;
    if all.is_empty() {
        return Err("no certificate in it; expected PEM (BEGIN CERTIFICATE)".to_owned());
    }
    Ok(all)
}

fn verifier(extra_ca: Option<&[u8]>, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
    let Some(pem) = extra_ca else {
        return Verifier::new(provider.clone()).map_err(|error| {
            format!("no usable trust roots on this system ({error}); give some with `ca_file`")
        });
    };
    let roots = certificates(pem)?;
    Verifier::new_with_extra_roots(roots, provider.clone())
        .map_err(|error| format!("not usable as a trust root: {error}"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::client_config;

    fn certificate() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn an_identity_of_certificate_and_key_is_taken() {
        let (chain, key) = certificate();
        let config = client_config(
            Some(chain.as_bytes()),
            &[b"h2"],
            Some((chain.as_bytes(), key.as_bytes())),
        )
        .unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [b"h2"]);
    }

    #[test]
    fn faults_in_pem_are_named_and_not_shown() {
        let (chain, key) = certificate();
        let (_, other) = certificate();
        for (ca, identity, says) in [
            ("nothing", None, "no certificate in it"),
            (key.as_str(), None, "no certificate in it"),
            (&chain, Some((chain.as_str(), "secret")), "private key is not PEM"),
            (&chain, Some((&chain, &other)), "do not fit"),
            (&chain, Some((&key, &key)), "no certificate in it"),
        ] {
            let identity = identity.map(|(c, k): (&str, &str)| (c.as_bytes(), k.as_bytes()));
            let error = client_config(Some(ca.as_bytes()), &[], identity).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("secret"));
        }
    }
}
