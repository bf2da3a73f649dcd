//! A Google service account's key file, and the assertion that is signed with it
//! (RFC 7523; "Using OAuth 2.0 for server to server applications").
//!
//! Everything that can be wrong with the file is found when the configuration is
//! read, named by field and never shown: half of all failed installations are a
//! file of the wrong sort, because Firebase offers three JSON files for download
//! and only one of them can send.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use crate::Secret;
use crate::http::is_loopback;
use crate::settings::SettingError;

/// The setting that holds the file's text.
const KEY: &str = "service_account";

/// Where to get the right file, as the end of an error.
const REMEDY: &str = "download a new key: Firebase console, project settings, service accounts, \
                      \"generate new private key\"";

/// The longest life that Google grants an assertion, seconds.
const ASSERTION_LIFE_S: u64 = 3600;

/// How far the assertion is dated back, seconds: a clock that is a little ahead
/// would otherwise sign assertions from the future, which are refused.
const CLOCK_SLACK_S: u64 = 10;

/// A service account that can sign. It has no `Debug`: there is a key in it.
#[derive(Clone)]
pub struct ServiceAccount {
    /// The project that the account belongs to.
    pub project_id: String,
    /// Where assertions are exchanged for access tokens.
    pub token_uri: Url,
    /// `token_uri` letter by letter: what the assertion's `aud` is compared with.
    audience: String,
    client_email: String,
    private_key_id: String,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

impl ServiceAccount {
    /// Reads a key file.
    ///
    /// # Errors
    /// All that is wrong with it, about the setting `service_account`.
    pub fn parse(file: &Secret) -> Result<Self, Vec<SettingError>> {
        let fields = object(file.expose()).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let project_id = text(&fields, "project_id", &mut errors);
        let private_key_id = text(&fields, "private_key_id", &mut errors);
        let client_email = text(&fields, "client_email", &mut errors);
        let key = text(&fields, "private_key", &mut errors).and_then(|pem| key(pem, &mut errors));
        let token_uri =
            text(&fields, "token_uri", &mut errors).and_then(|text| token_uri(text, &mut errors));
        match (project_id, private_key_id, client_email, key, token_uri) {
            (Some(project_id), Some(key_id), Some(email), Some(key), Some(token_uri)) => Ok(Self {
                project_id: project_id.to_owned(),
                audience: token_uri.0.to_owned(),
                token_uri: token_uri.1,
                client_email: email.to_owned(),
                private_key_id: key_id.to_owned(),
                key,
            }),
            _ => Err(errors),
        }
    }

    /// The signed assertion that the token endpoint takes for an access token of
    /// `scope`. RS256 is deterministic: the same second gives the same text.
    ///
    /// # Errors
    /// What the signing library says; a key that was parsed does sign.
    pub fn assertion(&self, scope: &str, now_s: u64) -> Result<Secret, String> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.private_key_id.clone());
        let iat = now_s.saturating_sub(CLOCK_SLACK_S);
        let claims = Claims {
            iss: &self.client_email,
            scope,
            aud: &self.audience,
            iat,
            exp: iat + ASSERTION_LIFE_S,
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map(Secret::new)
            .map_err(|error| error.to_string())
    }
}

/// The file as a JSON object that says it is a service account.
fn object(file: &str) -> Result<Map<String, Value>, SettingError> {
    let Ok(Value::Object(fields)) = serde_json::from_str(file) else {
        return Err(wrong(&format!("is no JSON object; {REMEDY}")));
    };
    if fields.contains_key("installed") || fields.contains_key("web") {
        return Err(wrong(&format!(
            "is an OAuth client file (client_secret.json), not a service account; {REMEDY}"
        )));
    }
    if fields.contains_key("project_info") {
        return Err(wrong(&format!(
            "is the Android app's google-services.json, not a service account; {REMEDY}"
        )));
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("service_account") => Ok(fields),
        Some("authorized_user" | "external_account" | "impersonated_service_account") => {
            Err(wrong(&format!(
                "is a credential of another type than `service_account`, which is the one \
                 supported; {REMEDY}"
            )))
        }
        Some(_) => Err(wrong(&format!("has a `type` other than `service_account`; {REMEDY}"))),
        None => Err(wrong(&format!("has no `type`, so it is no service account; {REMEDY}"))),
    }
}

fn text<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    errors: &mut Vec<SettingError>,
) -> Option<&'a str> {
    let fault = match fields.get(name) {
        Some(Value::String(value)) if !value.trim().is_empty() => return Some(value.trim()),
        Some(Value::String(_)) => "is empty",
        Some(_) => "is no string",
        None => "is missing",
    };
    errors.push(wrong(&format!("field `{name}` {fault}; {REMEDY}")));
    None
}

fn key(pem: &str, errors: &mut Vec<SettingError>) -> Option<EncodingKey> {
    let fault = if !pem.contains("-----BEGIN PRIVATE KEY-----") {
        "is no PKCS#8 PEM (\"BEGIN PRIVATE KEY\")"
    } else if !pem.contains('\n') {
        // What a shell or a template engine makes of "\\n" in a quoted string.
        "has lost its line breaks: they must stand as \\n in the JSON"
    } else {
        match EncodingKey::from_rsa_pem(pem.as_bytes()) {
            // Signing once shows what parsing does not: a key too short for RS256.
            Ok(key) if jsonwebtoken::encode(&Header::new(Algorithm::RS256), &(), &key).is_ok() => {
                return Some(key);
            }
            Ok(_) | Err(_) => "is damaged or no RSA key of at least 2048 bits",
        }
    };
    errors.push(wrong(&format!("field `private_key` {fault}; {REMEDY}")));
    None
}

/// The assertion is as good as a password for an hour, so it goes over TLS, or
/// to this very machine.
fn token_uri<'a>(text: &'a str, errors: &mut Vec<SettingError>) -> Option<(&'a str, Url)> {
    let fault = match Url::parse(text) {
        Ok(uri) if uri.scheme() == "https" && uri.has_host() => return Some((text, uri)),
        Ok(uri) if uri.scheme() == "http" && is_loopback(&uri) => return Some((text, uri)),
        Ok(uri) if uri.scheme() == "http" => "is http; only https is safe beyond loopback",
        Ok(_) | Err(_) => "is no https URL; normally it is https://oauth2.googleapis.com/token",
    };
    errors.push(wrong(&format!("field `token_uri` {fault}")));
    None
}

fn wrong(detail: &str) -> SettingError {
    SettingError::new(KEY, detail)
}

#[cfg(test)]
pub(crate) mod tests;
