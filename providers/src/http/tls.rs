//! TLS settings towards vendors.

use std::sync::Arc;

/// A client configuration that trusts the system's roots and `extra_ca` (PEM),
/// offers `alpn`, and logs in with `identity` (PEM chain, PEM key) if given.
/// The cryptography provider is named explicitly: nothing depends on a process default.
///
/// # Errors
/// What in the PEM is wrong, without showing it.
pub fn client_config(
    _extra_ca: Option<&[u8]>,
    _alpn: &[&[u8]],
    _identity: Option<(&[u8], &[u8])>,
) -> Result<Arc<rustls::ClientConfig>, String> {
    Err("not built".to_owned())
}
