//! Addresses and credentials.

use super::{KIND, login};
use crate::settings::{Value, Values};
use crate::{Address, Secret};

fn values(token: Option<&str>, username: Option<&str>, password: Option<&str>) -> Values {
    let mut values = Values::default();
    let secret = |text: &str| Value::Secret(Secret::new(text.to_owned()));
    if let Some(token) = token {
        values.insert("token", secret(token));
    }
    if let Some(username) = username {
        values.insert("username", Value::Text(username.to_owned()));
    }
    if let Some(password) = password {
        values.insert("password", secret(password));
    }
    values
}

#[test]
fn a_login_is_a_token_or_a_user_with_a_password() {
    for (token, username, password, expected) in [
        (None, None, None, None),
        (Some("tk_1"), None, None, Some("Bearer tk_1")),
        (None, Some("phil"), Some("mypass"), Some("Basic cGhpbDpteXBhc3M=")),
    ] {
        let login = login(&values(token, username, password)).ok().unwrap();
        assert_eq!(login.value.as_ref().map(|value| value.to_str().unwrap()), expected);
        assert!(login.value.is_none_or(|value| value.is_sensitive()));
    }
}

#[test]
fn both_or_half_of_a_login_is_told_at_its_key() {
    for (token, username, password, key) in [
        (Some("tk_1"), Some("phil"), Some("mypass"), "token"),
        (Some("tk_1"), Some("phil"), None, "token"),
        (Some("tk_1"), None, Some("mypass"), "token"),
        (None, Some("phil"), None, "password"),
        (None, None, Some("mypass"), "username"),
        (None, Some("a:b"), Some("mypass"), "username"),
        (Some("tk\n1"), None, None, "token"),
    ] {
        let error = login(&values(token, username, password)).err().unwrap();
        assert_eq!(error.key, key);
        assert!(!error.detail.contains("mypass") && !error.detail.contains("tk"), "{error:?}");
    }
}

#[test]
fn a_topic_is_what_the_server_takes() {
    let longest = "a".repeat(64);
    for topic in ["alice-7f3a", "_", longest.as_str()] {
        assert!(Address::new(&KIND, &[("topic", topic)], None, None).is_ok(), "{topic}");
    }
    let longer = "a".repeat(65);
    for topic in ["a b", "a/b", "ä", "docs", "v1", longer.as_str()] {
        assert!(Address::new(&KIND, &[("topic", topic)], None, None).is_err(), "{topic}");
    }
}
