//! Google Cloud's metadata server: on a machine there it gives out access tokens
//! of the machine's own service account, so that no key file need be kept.
//!
//! Only the request and the check of who answered are here; the token's life is
//! the same as with a key file ([`super::oauth`]). The server hands the same
//! token to all who ask until five minutes before its end and tells what is left
//! of its life, so that a renewal at 80 % may get the old one once more: the next
//! comes after 80 % of what is left then.
//!
//! Source: Google Cloud, "About VM metadata" and "Authenticate workloads to
//! Google Cloud APIs using service accounts".

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use url::Url;

use crate::settings::SettingError;

/// The setting that says where it is.
const KEY: &str = "metadata_server";

/// Its name inside Google Cloud; always 169.254.169.254 there. It has no TLS:
/// the packets do not leave the host.
const GOOGLE: &str = "http://metadata.google.internal";

const TOKEN_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// A request without it is refused, so that nobody is tricked into making one;
/// an answer without it comes from somebody else.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE_FLAVOR: HeaderValue = HeaderValue::from_static("Google");

/// Where tokens are fetched.
#[derive(Clone, Debug)]
pub struct MetadataServer {
    token_url: Url,
}

impl MetadataServer {
    /// The server at `place`, an origin; without one Google's own.
    ///
    /// # Errors
    /// What is wrong with `place`, about the setting `metadata_server`.
    pub fn new(place: Option<&str>, scope: &str) -> Result<Self, SettingError> {
        let fault = || {
            let detail = format!("is no http or https URL; inside Google Cloud it is {GOOGLE}");
            SettingError::new(KEY, detail)
        };
        let origin = Url::parse(place.unwrap_or(GOOGLE)).map_err(|_| fault())?;
        let is_plain = origin.username().is_empty()
            && origin.password().is_none()
            && origin.query().is_none()
            && origin.path() == "/";
        if !matches!(origin.scheme(), "http" | "https") || !origin.has_host() || !is_plain {
            return Err(fault());
        }
        let mut token_url = origin.join(TOKEN_PATH).map_err(|_| fault())?;
        token_url.query_pairs_mut().append_pair("scopes", scope);
        Ok(Self { token_url })
    }

    /// The request for a token.
    ///
    /// # Errors
    /// What the HTTP library says; a URL that was parsed does stand in a request.
    pub(super) fn request(&self) -> Result<Request<Bytes>, String> {
        Request::get(self.token_url.as_str())
            .header(FLAVOR, GOOGLE_FLAVOR)
            .header(header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|error| error.to_string())
    }

    /// Whether an answer is the metadata server's.
    pub(super) fn is_its(headers: &HeaderMap) -> bool {
        headers.get(FLAVOR) == Some(&GOOGLE_FLAVOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_names_flavor_and_scope() {
        let request = MetadataServer::new(None, "https://a/b").unwrap().request().unwrap();
        assert_eq!(
            request.uri(),
            "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/\
             default/token?scopes=https%3A%2F%2Fa%2Fb"
        );
        assert_eq!(request.headers()["metadata-flavor"], "Google");
    }

    #[test]
    fn only_origins_are_taken() {
        assert!(MetadataServer::new(Some("http://169.254.169.254"), "s").is_ok());
        for place in ["metadata", "ftp://a", "http://a/path", "http://u:p@a", "http://a/?x=1"] {
            let error = MetadataServer::new(Some(place), "s").unwrap_err();
            assert_eq!(error.key, "metadata_server", "{place}");
        }
    }
}
