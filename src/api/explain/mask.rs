//! A vendor's request as people may see it: the whole of it, but for what makes
//! the device or the account reachable.
//!
//! Adapters build requests without knowing that they will be shown, and each vendor
//! puts the token elsewhere: into the path, a header, the body. So the values of the
//! address are looked for everywhere. A value that is long enough is found within
//! other text, too; a short one (a topic called `a`) only where it stands alone,
//! because it would take half the message with it.

use axum::http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use pushyard_providers::{Address, VendorRequest};
use reqwest::Url;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What stands for what is not shown.
pub(super) const MASK: &str = "***";

/// A value of so many bytes does not occur in other text by chance.
const UNMISTAKABLE: usize = 8;

/// Headers that are a credential whoever sets them.
const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// The request that would go out, with `***` for tokens and credentials.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VendorRequest)]
pub(super) struct RequestView {
    /// HTTP method.
    method: String,
    /// Where it goes.
    url: String,
    /// As they go out; those of the credential are added to each call.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Map<String, Value>,
    /// The payload: JSON, the fields of a form, or text. Of one that is neither its size.
    #[schema(value_type = Value)]
    body: Value,
}

impl RequestView {
    /// What is in it is another client's.
    pub(super) fn hide_body(&mut self) {
        self.body = MASK.into();
    }
}

/// What is known of the one whose request is shown.
pub(super) struct Masker<'a> {
    /// As they are, and as they stand in a path.
    secrets: Vec<String>,
    /// Names the delivery, and is no secret.
    delivery: &'a str,
}

impl<'a> Masker<'a> {
    pub(super) fn new(address: &Address, delivery: &'a str) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for secret in address.secrets() {
            secrets.extend(in_path(secret).filter(|encoded| encoded != secret));
            secrets.push(secret.to_owned());
        }
        Self { secrets, delivery }
    }

    /// The request with `***` in it. `credential`: headers that are added when it
    /// is sent.
    pub(super) fn view(&self, request: &VendorRequest, credential: &[HeaderName]) -> RequestView {
        let mut headers = Map::new();
        for name in request.headers.keys() {
            headers.insert(name.as_str().to_owned(), self.header(&request.headers, name).into());
        }
        for name in credential {
            headers.insert(name.as_str().to_owned(), MASK.into());
        }
        RequestView {
            method: request.method.as_str().to_owned(),
            url: self.url(&request.uri),
            headers,
            body: self.body(&request.body),
        }
    }

    fn url(&self, uri: &Uri) -> String {
        let authority = uri.authority().map(|authority| authority.as_str());
        // A user or a password before the host is nobody's business.
        let host = authority.map(|text| text.rsplit('@').next().unwrap_or_default());
        let origin = match (uri.scheme_str(), host) {
            (Some(scheme), Some(host)) => format!("{scheme}://{host}"),
            (_, _) => String::new(),
        };
        // The address is the URL itself: all but its host is a secret.
        let is_address = |secret: &String| {
            Url::parse(secret)
                .is_ok_and(|url| url.host_str().is_some() && url.host_str() == uri.host())
        };
        if self.secrets.iter().any(is_address) {
            return format!("{origin}/{MASK}");
        }
        let path: Vec<String> = uri.path().split('/').map(|part| self.text(part)).collect();
        let query = uri.query().map_or(String::new(), |query| {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((name, _)) => format!("{name}={MASK}"),
                None => MASK.to_owned(),
            });
            format!("?{}", pairs.collect::<Vec<_>>().join("&"))
        });
        format!("{origin}{}{query}", path.join("/"))
    }

    fn header(&self, headers: &HeaderMap, name: &HeaderName) -> String {
        let shown = |value: &HeaderValue| match value.to_str() {
            _ if CREDENTIALS.contains(name) => MASK.to_owned(),
            Ok(text) if text == self.delivery => text.to_owned(),
            _ if value.is_sensitive() => MASK.to_owned(),
            Ok(text) => self.text(text),
            Err(_) => MASK.to_owned(),
        };
        headers.get_all(name).iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    fn body(&self, body: &[u8]) -> Value {
        if body.is_empty() {
            return Value::Null;
        }
        if let Ok(mut value) = serde_json::from_slice::<Value>(body) {
            self.value(&mut value);
            return value;
        }
        match std::str::from_utf8(body) {
            Ok(text) if is_form(text) => self.form(text),
            Ok(text) => self.text(text).into(),
            Err(_) => format!("{} bytes", body.len()).into(),
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.value(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// `application/x-www-form-urlencoded`; what is JSON in a field is shown as such.
    fn form(&self, text: &str) -> Value {
        let Ok(url) = Url::parse(&format!("form:/?{text}")) else { return MASK.into() };
        let field = |(name, text): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            let json = serde_json::from_str::<Value>(&text).ok();
            let value = match json.filter(|value| value.is_object() || value.is_array()) {
                Some(mut value) => {
                    self.value(&mut value);
                    value
                }
                None => self.text(&text).into(),
            };
            (name.into_owned(), value)
        };
        url.query_pairs().map(field).collect::<Map<_, _>>().into()
    }

    fn text(&self, text: &str) -> String {
        if self.secrets.iter().any(|secret| secret == text) {
            return MASK.to_owned();
        }
        let long = self.secrets.iter().filter(|secret| secret.len() >= UNMISTAKABLE);
        long.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASK))
    }
}

/// A value as it stands in a path.
fn in_path(value: &str) -> Option<String> {
    let mut url = Url::parse("https://h/").ok()?;
    url.path_segments_mut().ok()?.clear().push(value);
    url.path().strip_prefix('/').map(str::to_owned)
}

/// `name=value&name=value`, without blanks.
fn is_form(text: &str) -> bool {
    let pair = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    !text.contains(char::is_whitespace) && text.split('&').all(pair)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use pushyard_providers::registry;
    use serde_json::json;

    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000000";

    fn address(kind: &str, values: &[(&str, &str)]) -> Address {
        Address::new(registry::kind(kind).unwrap(), values, None, None).unwrap()
    }

    fn view(address: &Address, uri: &str, headers: &[(&'static str, &str)], body: &str) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).unwrap();
            value.set_sensitive(*name == "x-key");
            map.append(*name, value);
        }
        let request = VendorRequest {
            method: Method::POST,
            uri: uri.parse().unwrap(),
            headers: map,
            body: body.to_owned().into(),
        };
        let view = Masker::new(address, ID).view(&request, &[AUTHORIZATION]);
        serde_json::to_value(view).unwrap()
    }

    #[test]
    fn a_token_is_masked_in_the_path_and_the_app_is_not() {
        let apns = address("apns", &[("token", "ab"), ("app", "com.example.shop")]);
        let headers = [("apns-topic", "com.example.shop"), ("apns-id", ID)];
        let body = r#"{"aps":{"alert":"about ab"}}"#;
        assert_eq!(
            view(&apns, "https://api.push.apple.com/3/device/ab", &headers, body),
            json!({
                "method": "POST",
                "url": "https://api.push.apple.com/3/device/***",
                "headers": {"apns-topic": "com.example.shop", "apns-id": ID, "authorization": "***"},
                "body": {"aps": {"alert": "about ab"}},
            })
        );
    }

    #[test]
    fn a_token_is_masked_wherever_the_vendor_wants_it() {
        let fcm = address("fcm", &[("token", "registration-token")]);
        let body = r#"{"message":{"token":"registration-token","data":{"n":"1"}},"tokens":["registration-token"]}"#;
        let shown =
            view(&fcm, "https://h/v1?key=s3cret&flag", &[("x-to", "/to/registration-token")], body);
        assert_eq!(shown["url"], "https://h/v1?key=***&***");
        assert_eq!(shown["headers"]["x-to"], "/to/***");
        let body = json!({"message": {"token": "***", "data": {"n": "1"}}, "tokens": ["***"]});
        assert_eq!(shown["body"], body);
    }

    #[test]
    fn a_token_that_is_escaped_in_the_path_or_sent_in_a_form_is_masked() {
        let webhook = address("webhook", &[("id", "a b/c")]);
        let form = "registration_id=a+b%2Fc&payload=%7B%22to%22%3A%22a%20b%2Fc%22%7D&n=1";
        let shown = view(&webhook, "https://h/to/a%20b%2Fc", &[], form);
        assert_eq!(shown["url"], "https://h/to/***");
        let body = json!({"registration_id": "***", "payload": {"to": "***"}, "n": "1"});
        assert_eq!(shown["body"], body);
    }

    #[test]
    fn credentials_and_sensitive_headers_are_masked() {
        let topic = address("ntfy", &[("topic", "news")]);
        let headers = [("authorization", "Bearer s3cret"), ("x-key", "s3cret"), ("x-n", "1")];
        let shown = view(&topic, "https://user:s3cret@h/", &headers, "plain text, news");
        assert_eq!(shown["headers"], json!({"authorization": "***", "x-key": "***", "x-n": "1"}));
        assert!(!shown.to_string().contains("s3cret"), "{shown}");
        assert_eq!(shown["body"], "plain text, news", "a short topic stands in other text");
    }
}
