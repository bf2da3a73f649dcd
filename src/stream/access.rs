//! Who may listen to a topic: everyone, or who brings a token for it.
//!
//! ntfy's clients send it as Bearer, as the password of Basic (the only login
//! that its Android app has), or, where a browser cannot set headers, as `?auth=`
//! with the header's value in base64. Other schemes count as no credential.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pushyard_providers::stream::Tokens;

use super::refusal::Refusal;

/// `[stream] access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the listener.
    Open,
    /// Who has a token for the topic.
    Token,
}

impl Access {
    /// Its words in the file.
    pub const WORDS: [&'static str; 2] = ["open", "token"];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Token => "token",
        }
    }
}

/// The token that a request brings.
pub(super) fn credential(headers: &HeaderMap, parameter: Option<&str>) -> Option<String> {
    let from_header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    from_header.and_then(token).or_else(|| {
        let value = URL_SAFE_NO_PAD.decode(parameter?.trim_end_matches('=')).ok()?;
        token(std::str::from_utf8(&value).ok()?)
    })
}

fn token(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether the token opens all these topics.
pub(super) fn check(
    tokens: &Tokens,
    credential: Option<&str>,
    topics: &[Box<str>],
    now: u64,
) -> Result<(), Refusal> {
    let token = credential.ok_or(Refusal::Forbidden)?;
    let opened = topics.iter().filter(|topic| tokens.opens(token, topic, now)).count();
    match opened {
        0 => Err(Refusal::Unauthorized),
        some if some < topics.len() => Err(Refusal::Forbidden),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_each_way_that_ntfys_clients_know() {
        let basic = format!("Basic {}", STANDARD.encode(":tok"));
        let named = format!("basic {}", STANDARD.encode("alice:tok"));
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            credential(&headers, None)
        };
        for value in ["Bearer tok", "bearer  tok ", &basic, &named] {
            assert_eq!(of(value).as_deref(), Some("tok"), "{value}");
            let parameter = URL_SAFE_NO_PAD.encode(value);
            let found = credential(&HeaderMap::new(), Some(&parameter));
            assert_eq!(found.as_deref(), Some("tok"), "{value}");
        }
        for value in ["WebPush x", "vapid t=1", "Basic !", "tok"] {
            assert_eq!(of(value), None, "{value}");
        }
    }

    #[test]
    fn no_token_is_forbidden_a_bad_one_unauthorized() {
        let tokens = Tokens::new(b"s");
        let topics = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<_>>();
        let good = tokens.make("a", 10);
        assert_eq!(check(&tokens, None, &topics(&["a"]), 5), Err(Refusal::Forbidden));
        assert_eq!(check(&tokens, Some("x"), &topics(&["a"]), 5), Err(Refusal::Unauthorized));
        assert_eq!(check(&tokens, Some(&good), &topics(&["a", "b"]), 5), Err(Refusal::Forbidden));
        assert_eq!(check(&tokens, Some(&good), &topics(&["a"]), 10), Err(Refusal::Unauthorized));
        assert_eq!(check(&tokens, Some(&good), &topics(&["a"]), 5), Ok(()));
    }
}
