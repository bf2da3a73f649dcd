//! How a provider shows Apple who it is: a signing key, or a certificate.
//!
//! Both come from settings that only make sense together, and all that is wrong
//! with them is told at once: an operator who pastes credentials should not have
//! to find the mistakes one by one.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::{Oid, asn1_rs::oid};

use crate::auth::es256::TokenMint;
use crate::http::tls;
use crate::registry::Context;
use crate::settings::{SettingError, Values};

/// Team and key ids have this many characters.
const ID_LENGTH: usize = 10;

/// "UID" of a certificate's subject: its topic.
const SUBJECT_UID: Oid<'static> = oid!(0.9.2342.19200300.100.1.1);

/// The extension of certificates that serve several topics.
const TOPICS: Oid<'static> = oid!(1.2.840.113635.100.6.3.6);

/// A provider's credential.
pub(super) enum Login {
    /// A key of the team, which signs provider tokens.
    Token(Box<TokenMint>),
    /// A client certificate.
    Certificate(Certificate),
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// `notAfter`, unix seconds.
    pub(super) expires_at: u64,
    /// Its topic. `None` where it has several, or does not say.
    pub(super) topic: Option<String>,
    /// Whether `apns-topic` must be sent: it serves several.
    pub(super) needs_topic: bool,
}

impl Login {
    /// Reads the credential from the settings, with the TLS settings that it asks for.
    pub(super) fn new(
        context: &Context,
    ) -> Result<(Self, Arc<rustls::ClientConfig>), Vec<SettingError>> {
        let values = &context.values;
        match (values.secret("key"), values.secret("certificate")) {
            (Some(_), Some(_)) => Err(vec![SettingError::new(
                "certificate",
                "stands beside `key`: a provider logs in with one of the two",
            )]),
            (None, None) => Err(without(values)),
            (Some(_), None) => Self::with_key(context),
            (None, Some(_)) => Self::with_certificate(context),
        }
    }

    fn with_key(context: &Context) -> Result<(Self, Arc<rustls::ClientConfig>), Vec<SettingError>> {
        let values = &context.values;
        let mut errors = Vec::new();
        let mut id = |key: &'static str, whose: &str| match values.text(key) {
            Some(text) if is_id(text) => text.to_owned(),
            Some(_) => {
                errors
                    .push(SettingError::new(key, format!("is not {whose}: 10 letters and digits")));
                String::new()
            }
            None => {
                errors.push(SettingError::new(key, format!("is required with `key`: {whose}")));
                String::new()
            }
        };
        let team_id = id("team_id", "the team id of the developer account");
        let key_id = id("key_id", "the id that Apple gave the key, as in AuthKey_<id>.p8");
        if values.secret("certificate_key").is_some() {
            errors.push(SettingError::new(
                "certificate_key",
                "stands beside `key`, without `certificate`",
            ));
        }
        let text = values.secret("key").map_or("", |key| key.expose());
        let mint =
            TokenMint::new(text, &key_id, &team_id, context.memo.as_deref(), context.clock.clone())
                .map_err(|detail| errors.push(SettingError::new("key", detail)));
        let tls = tls::client_config(context.ca.as_deref(), &[b"h2"], None)
            .map_err(|detail| errors.push(SettingError::new("ca_file", detail)));
        match (mint, tls) {
            (Ok(mint), Ok(tls)) if errors.is_empty() => Ok((Self::Token(Box::new(mint)), tls)),
            (_, _) => Err(errors),
        }
    }

    fn with_certificate(
        context: &Context,
    ) -> Result<(Self, Arc<rustls::ClientConfig>), Vec<SettingError>> {
        let values = &context.values;
        let pem = values.secret("certificate").map_or("", |pem| pem.expose()).as_bytes();
        let one = |key, detail: String| vec![SettingError::new(key, detail)];
        let chain = tls::certificates(pem).map_err(|detail| one("certificate", detail));
        let certificate =
            chain.and_then(|chain| read(&chain).map_err(|detail| one("certificate", detail)));
        let Some(key) = values.secret("certificate_key") else {
            let mut errors = certificate.err().unwrap_or_default();
            errors.extend(one("certificate_key", "is required with `certificate`".to_owned()));
            return Err(errors);
        };
        let certificate = certificate?;
        // The extra root alone first, so that a fault of it bears its own name.
        tls::client_config(context.ca.as_deref(), &[b"h2"], None)
            .map_err(|detail| one("ca_file", detail))?;
        let identity = Some((pem, key.expose().as_bytes()));
        let tls = tls::client_config(context.ca.as_deref(), &[b"h2"], identity)
            .map_err(|detail| one("certificate_key", detail))?;
        Ok((Self::Certificate(certificate), tls))
    }
}

/// Neither of the two; what stands beside shows which was meant.
fn without(values: &Values) -> Vec<SettingError> {
    if values.secret("certificate_key").is_some() {
        return vec![SettingError::new("certificate", "is required with `certificate_key`")];
    }
    vec![SettingError::new(
        "key",
        "is missing: give `key` (the .p8 file) with `team_id` and `key_id`, \
         or `certificate` with `certificate_key`",
    )]
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn read(chain: &[CertificateDer<'static>]) -> Result<Certificate, String> {
    let der = chain.first().map_or(&[][..], |first| first);
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| "its first certificate cannot be read".to_owned())?;
    let needs_topic = certificate.extensions().iter().any(|extension| extension.oid == TOPICS);
    let topic = certificate
        .subject()
        .iter_by_oid(&SUBJECT_UID)
        .find_map(|uid| uid.as_str().ok())
        .filter(|_| !needs_topic)
        .map(str::to_owned);
    let expires_at = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok(Certificate { expires_at, topic, needs_topic })
}
