//! Signed tokens, read strictly.
//!
//! Apple is known to accept padded base64 and DER signatures as well. A stand-in
//! that judges does not unless it is told to: what only one vendor's leniency lets
//! through is a fault of the sender (RFC 7515, section 2, and RFC 7518, section
//! 3.4, allow one form each). Signatures are verified for real.

use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// A token whose parts were read, and whose signature was not looked at yet.
pub(super) struct Jwt<'a> {
    pub(super) header: Header,
    pub(super) claims: serde_json::Value,
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
}

/// How a token's parts may be spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// base64url without padding.
    Strict,
    /// Also plain base64, and with padding.
    Lenient,
}

impl<'a> Jwt<'a> {
    pub(super) fn read(token: &'a str, spelling: Spelling) -> Option<Self> {
        let decode = |part| decode(part, spelling);
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed,
            signature: decode(signature)?,
        })
    }

    pub(super) fn is_signed_by(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        key: &[u8],
    ) -> bool {
        UnparsedPublicKey::new(algorithm, key)
            .verify(self.signed.as_bytes(), &self.signature)
            .is_ok()
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims[claim].as_str()
    }

    /// A time claim in seconds since the epoch; fractions are dropped (RFC 7519,
    /// section 2, allows them).
    pub(super) fn time(&self, claim: &str) -> Option<u64> {
        let value = &self.claims[claim];
        value.as_u64().or_else(|| value.as_f64().filter(|t| *t >= 0.0).map(|t| t as u64))
    }
}

fn decode(part: &str, spelling: Spelling) -> Option<Vec<u8>> {
    let strict = URL_SAFE_NO_PAD.decode(part).ok();
    match spelling {
        Spelling::Strict => strict,
        Spelling::Lenient => {
            let bare = part.trim_end_matches('=');
            strict
                .or_else(|| STANDARD_NO_PAD.decode(bare).ok())
                .or_else(|| URL_SAFE_NO_PAD.decode(bare).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;

    use super::*;

    /// A token with its key, signed deterministically (RFC 6979), so that the
    /// verifier is tested against another signer than the one of these tests.
    const TOKEN: &str = concat!(
        "eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.",
        "eyJpc3MiOiJERUYxMjNHSElKIiwiaWF0IjoxNzAwMDAwMDAwfQ.",
        "TsSrS_UibDo-ilIeqaD_BrSZYaPrYTD1ApCqs2840OapnTy_C3NvfSsvtd4D-s5t4E-MlN3SLe1OKpFN3usI9A"
    );
    const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjXgGwKE4/danoVde
D6ogLi8+XWmO5oxlrsMjxdbs25ihRANCAAS5k70661YQhQTvPqOgr8h12d8ZOH6l
AWGODZloYcDSsbCZ0TgwhiO8O+xBY2cTw/TOYiFrPjDUDbakCzxoSsyz
-----END PRIVATE KEY-----
";

    #[test]
    fn foreign_token_is_verified() {
        let key = rcgen::KeyPair::from_pem(KEY).unwrap();
        let jwt = Jwt::read(TOKEN, Spelling::Strict).unwrap();
        assert!(jwt.is_signed_by(&ECDSA_P256_SHA256_FIXED, key.public_key_raw()));
        assert_eq!(jwt.text("iss"), Some("DEF123GHIJ"));
        assert_eq!(jwt.time("iat"), Some(1_700_000_000));
    }

    #[test]
    fn padding_and_changed_claims_are_refused() {
        assert!(Jwt::read(&format!("{TOKEN}=="), Spelling::Strict).is_none());
        assert!(Jwt::read(&format!("{TOKEN}=="), Spelling::Lenient).is_some());
        let key = rcgen::KeyPair::from_pem(KEY).unwrap();
        let changed = TOKEN.replacen("MDAwfQ", "MDAxfQ", 1);
        assert_ne!(changed, TOKEN);
        let jwt = Jwt::read(&changed, Spelling::Strict).unwrap();
        assert!(!jwt.is_signed_by(&ECDSA_P256_SHA256_FIXED, key.public_key_raw()));
    }
}
