//! The handshake, and which HTTP follows it.
//!
//! The crypto provider is given explicitly: a process-wide default would belong
//! to the program that the simulator is part of.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::identity::Identity;

/// Which protocols a vendor's door offers, and whom it asks for a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/2 alone, with an optional client certificate. A client that offers
    /// something else and not this is refused in the handshake; one that offers
    /// nothing is taken at its word, as some APNs clients need it.
    Http2,
    /// HTTP/2 or HTTP/1.1; a client that offers nothing gets the latter.
    Either,
}

/// Makes a door's TLS configuration.
pub(crate) fn config(identity: &Identity, offer: Offer) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match offer {
        Offer::Http2 => {
            let mut roots = RootCertStore::empty();
            roots.add(identity.ca.clone()).map_err(io::Error::other)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(io::Error::other)?;
            builder.with_client_cert_verifier(verifier)
        }
        Offer::Either => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(identity.server_chain.clone(), identity.server_key.clone_key())
        .map_err(io::Error::other)?;
    config.alpn_protocols = match offer {
        Offer::Http2 => vec![b"h2".to_vec()],
        Offer::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}
