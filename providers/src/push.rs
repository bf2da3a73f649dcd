//! The message model that adapters are given: what a backend wants a device to
//! get, free of recipients, routing and time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is to be shown or handed to the app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// What the device shows; `None` for a data-only push.
    pub notification: Option<Notification>,
    /// String pairs for the app.
    pub data: BTreeMap<String, String>,
    /// Wake the device, or let it choose the time.
    pub priority: Priority,
    /// A newer push of the same key replaces an older one.
    pub collapse_key: Option<String>,
    /// By kind: a JSON merge patch over the payload the adapter built, as text.
    /// It has been checked to be a JSON object.
    pub overrides: BTreeMap<String, String>,
}

impl Push {
    /// The merge patch for a kind, parsed; an empty object when there is none.
    pub fn patch(&self, kind: &str) -> serde_json::Map<String, serde_json::Value> {
        self.overrides
            .get(kind)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Title and text for a channel that shows text and nothing else. A title
    /// without a body is the text; a push that shows nothing is its data as JSON,
    /// which programs on such a channel can read. `None`: there is neither.
    pub fn plain_text(&self) -> Option<(Option<&str>, Cow<'_, str>)> {
        fn filled(text: &Option<String>) -> Option<&str> {
            text.as_deref().filter(|text| !text.trim().is_empty())
        }
        let notification = self.notification.as_ref();
        let title = notification.and_then(|n| filled(&n.title));
        let body = notification.and_then(|n| filled(&n.body));
        match (title, body) {
            (title, Some(body)) => Some((title, body.into())),
            (Some(title), None) => Some((None, title.into())),
            (None, None) if self.data.is_empty() => None,
            (None, None) => Some((None, serde_json::json!(self.data).to_string().into())),
        }
    }
}

/// What a device shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// First line.
    pub title: Option<String>,
    /// Text.
    pub body: Option<String>,
    /// URL of a picture.
    pub image: Option<String>,
    /// What opens on a click.
    pub url: Option<String>,
    /// Sound name; `default` is the system's.
    pub sound: Option<String>,
    /// The number on the app's icon; 0 clears it.
    pub badge: Option<u32>,
    /// Set of actions that the app has registered.
    pub category: Option<String>,
    /// Notifications of one thread are grouped.
    pub thread: Option<String>,
    /// A shown notification of the same tag is replaced.
    pub tag: Option<String>,
}

/// How urgent a push is. Ordered: `Normal` below `High`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Priority {
    /// The device may wait for a good moment.
    #[default]
    Normal,
    /// At once.
    High,
}

impl Priority {
    /// The word used in API, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// JSON merge patch (RFC 7396): `null` deletes, objects merge, the rest replaces.
pub fn merge(target: &mut serde_json::Value, patch: serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(serde_json::Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merge;

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target;
            merge(&mut merged, patch);
            assert_eq!(merged, result);
        }
    }
}
