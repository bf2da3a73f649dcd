//! Signatures of the webhooks that we send (Standard Webhooks, specification 1.0):
//! the receiver sees that a request is ours, unchanged, and not an old one again.
//!
//! What is signed is `{id}.{timestamp}.{body}`, with the body's bytes exactly as
//! they go out: whoever serialises again between signing and sending signs
//! something else. The id is the same for every attempt, which makes it the
//! receiver's idempotency key; the timestamp is the attempt's own.
//!
//! A signer may hold several secrets. It signs with each of them, and a receiver
//! takes a request when any one signature fits: that is how a secret is replaced
//! without a moment in which requests are refused.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::Secret;

/// The event's id, the same for every attempt.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");

/// When this attempt was made, unix seconds.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// What [`Signer::sign`] makes.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Standard base64 with padding, as the specification writes secrets; one whose
/// padding was lost in copying is read all the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of a symmetric secret (*Standard Webhooks*, "Signature scheme").
const SYMMETRIC: std::ops::RangeInclusive<usize> = 24..=64;

/// An Ed25519 private key: the seed, or the seed and the public key after it.
const SEED: usize = 32;
const SEED_AND_PUBLIC: usize = 64;

const REMEDY: &str =
    "make one with: echo \"whsec_$(openssl rand -base64 32)\", and give it to the receiver too";

/// Signs requests with one secret or several.
pub struct Signer(Vec<Key>);

enum Key {
    /// `v1`, HMAC-SHA256.
    Symmetric(Box<hmac::Key>),
    /// `v1a`, Ed25519.
    Asymmetric(Box<Ed25519KeyPair>),
}

impl Signer {
    /// Reads secrets: `whsec_…` (symmetric) or `whsk_…` (an Ed25519 private key).
    ///
    /// # Errors
    /// What is wrong and what to do, without showing a secret. With several, the
    /// error says which by its place.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Result<Self, String> {
        let secrets: Vec<&Secret> = secrets.into_iter().collect();
        let several = secrets.len() > 1;
        let mut keys = Vec::with_capacity(secrets.len());
        for (at, secret) in secrets.into_iter().enumerate() {
            let key = Key::parse(secret.expose()).map_err(|detail| {
                if several { format!("number {}: {detail}", at + 1) } else { detail }
            })?;
            keys.push(key);
        }
        if keys.is_empty() { Err(format!("needs a secret; {REMEDY}")) } else { Ok(Self(keys)) }
    }

    /// The value of [`SIGNATURE`]: `v1,…`, one for each secret. `timestamp` is in
    /// unix seconds, `body` the bytes that go out.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> HeaderValue {
        let mut message = format!("{id}.{timestamp}.").into_bytes();
        message.extend_from_slice(body);
        let signatures: Vec<String> = self.0.iter().map(|key| key.sign(&message)).collect();
        HeaderValue::try_from(signatures.join(" "))
            .expect("versions, commas, base64 and spaces are visible ASCII")
    }

    /// All three headers of an attempt. An id that cannot stand in a header is
    /// no id of ours, and its header is left out.
    pub fn headers(
        &self,
        id: &str,
        timestamp: u64,
        body: &[u8],
    ) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let id_header = HeaderValue::try_from(id).ok().map(|id| (ID, id));
        let signature = self.sign(id, timestamp, body);
        [(TIMESTAMP, HeaderValue::from(timestamp)), (SIGNATURE, signature)]
            .into_iter()
            .chain(id_header)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} secrets)", self.0.len())
    }
}

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(text) = text.strip_prefix("whsec_") {
            return Self::symmetric(&decoded(text)?);
        }
        if let Some(text) = text.strip_prefix("whsk_") {
            return Self::asymmetric(&decoded(text)?);
        }
        Err(if text.starts_with("whpk_") {
            "is a public key, which is the receiver's; the private one begins with whsk_".to_owned()
        } else {
            format!("must begin with whsec_ (or whsk_ for Ed25519); {REMEDY}")
        })
    }

    fn symmetric(secret: &[u8]) -> Result<Self, String> {
        if SYMMETRIC.contains(&secret.len()) {
            return Ok(Self::Symmetric(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))));
        }
        Err(format!(
            "holds {} bytes after whsec_, and must hold {} to {}; {REMEDY}",
            secret.len(),
            SYMMETRIC.start(),
            SYMMETRIC.end(),
        ))
    }

    fn asymmetric(secret: &[u8]) -> Result<Self, String> {
        let pair = match secret.len() {
            SEED => Ed25519KeyPair::from_seed_unchecked(secret),
            SEED_AND_PUBLIC => {
                let (seed, public) = secret.split_at(SEED);
                Ed25519KeyPair::from_seed_and_public_key(seed, public)
            }
            length => {
                return Err(format!(
                    "holds {length} bytes after whsk_, and an Ed25519 private key has {SEED} \
                     (or {SEED_AND_PUBLIC}, with the public key after it)"
                ));
            }
        };
        pair.map(|pair| Self::Asymmetric(Box::new(pair)))
            .map_err(|_| "is no Ed25519 private key: its two halves do not match".to_owned())
    }

    /// `version,base64`.
    fn sign(&self, message: &[u8]) -> String {
        match self {
            Self::Symmetric(key) => format!("v1,{}", BASE64.encode(hmac::sign(key, message))),
            Self::Asymmetric(pair) => format!("v1a,{}", BASE64.encode(pair.sign(message))),
        }
    }
}

fn decoded(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    BASE64
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| format!("is not base64 after its prefix; {REMEDY}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use base64::Engine as _;

    use super::{BASE64, SIGNATURE, Signer};
    use crate::Secret;

    const SECRET_A: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SECRET_B: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const ID_A: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT_A: u64 = 1_614_265_330;
    const BODY_A: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE_A: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    /// Seed and public key of RFC 8032 section 7.1, test 1.
    const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn signer(secrets: &[&str]) -> Result<Signer, String> {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
        Signer::new(&secrets)
    }

    fn whsk(parts: &[&str]) -> String {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| BASE64.decode(part).unwrap()).collect();
        format!("whsk_{}", BASE64.encode(bytes))
    }

    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        let body_b: &[u8] =
            br#"{"type":"push.receipt","timestamp":"2026-01-02T03:04:05Z","data":{"id":"m1"}}"#;
        for (secret, id, at, body, signature) in [
            (SECRET_A, ID_A, AT_A, BODY_A, SIGNATURE_A),
            (
                SECRET_B,
                "msg_0001",
                1_767_323_045,
                body_b,
                "v1,K4q8v9d0Or8Cpx1CKYp5o9xXOSBQKqSd6HTYWX1UMQI=",
            ),
        ] {
            assert_eq!(signer(&[secret]).unwrap().sign(id, at, body), signature);
        }
    }

    #[test]
    fn each_secret_signs_so_that_one_can_be_replaced() {
        let both = signer(&[SECRET_B, SECRET_A]).unwrap().sign(ID_A, AT_A, BODY_A);
        let (new, old) = both.to_str().unwrap().split_once(' ').unwrap();
        assert_eq!(old, SIGNATURE_A);
        assert_eq!(new, signer(&[SECRET_B]).unwrap().sign(ID_A, AT_A, BODY_A));
    }

    #[test]
    fn a_private_key_signs_as_v1a_and_its_public_key_verifies() {
        for secret in [whsk(&[SEED]), whsk(&[SEED, PUBLIC])] {
            let value = signer(&[&secret]).unwrap().sign(ID_A, AT_A, BODY_A);
            let signature = value.to_str().unwrap().strip_prefix("v1a,").unwrap();
            let public = UnparsedPublicKey::new(&ED25519, BASE64.decode(PUBLIC).unwrap());
            let message = [format!("{ID_A}.{AT_A}.").as_bytes(), BODY_A].concat();
            public.verify(&message, &BASE64.decode(signature).unwrap()).unwrap();
        }
    }

    #[test]
    fn the_three_headers_belong_to_one_another() {
        let signer = signer(&[SECRET_A]).unwrap();
        let headers: http::HeaderMap = signer.headers(ID_A, AT_A, BODY_A).collect();
        assert_eq!(headers["webhook-id"], ID_A);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers[SIGNATURE], SIGNATURE_A);
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn a_secret_that_is_none_is_refused_with_a_remedy_and_never_shown() {
        let short = format!("whsec_{}", BASE64.encode([7; 23]));
        let long = format!("whsec_{}", BASE64.encode([7; 65]));
        let torn = whsk(&[SEED, SEED]);
        let public = format!("whpk_{PUBLIC}");
        for (secrets, told) in [
            (vec![], "needs a secret"),
            (vec!["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "must begin with whsec_"),
            (vec!["whsec_MfKQ9r8GKYqr?"], "is not base64"),
            (vec![short.as_str()], "holds 23 bytes"),
            (vec![long.as_str()], "holds 65 bytes"),
            (vec!["whsk_AAAA"], "holds 3 bytes after whsk_"),
            (vec![torn.as_str()], "two halves"),
            (vec![public.as_str()], "is a public key"),
            (vec![SECRET_A, "whsec_"], "number 2: holds 0 bytes"),
        ] {
            let error = signer(&secrets).unwrap_err();
            assert!(error.contains(told), "{error}");
            for secret in secrets.iter().filter(|secret| secret.len() > 9) {
                assert!(!error.contains(&secret[7..]), "{error}");
            }
        }
    }

    #[test]
    fn a_secret_that_lost_its_padding_still_signs() {
        let bare = SECRET_B.trim_end_matches('=');
        let of = |secret: &str| signer(&[secret]).unwrap().sign(ID_A, AT_A, BODY_A);
        assert_eq!(of(bare), of(SECRET_B));
    }
}
