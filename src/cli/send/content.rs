//! What makes a message, but for its recipients: the options that `send` and
//! `explain` share.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::recipient::Recipient;

/// What is to be sent, and until when.
#[derive(Debug, Args)]
pub(in crate::cli) struct Content {
    /// The notification's title
    #[arg(long)]
    title: Option<String>,
    /// The notification's text
    #[arg(long)]
    body: Option<String>,
    /// The notification's picture
    #[arg(long, value_name = "URL")]
    image: Option<String>,
    /// What a tap on the notification opens
    #[arg(long, value_name = "URL")]
    click: Option<String>,
    /// The notification's sound; `default` is the device's
    #[arg(long)]
    sound: Option<String>,
    /// The number on the app's icon
    #[arg(long, value_name = "N")]
    badge: Option<u32>,
    /// Data for the app; repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    data: Vec<(String, String)>,

    /// How urgent it is; high unless there is only data
    #[arg(long)]
    priority: Option<Priority>,
    /// How long it is worth delivering, as 30s, 4h, 7d; 24h unless given, 0s is now or never
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Newer messages with the same key take the place of older ones
    #[arg(long, value_name = "KEY")]
    collapse_key: Option<String>,
    /// The route it takes
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// When to deliver it, as 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    deliver_at: Option<String>,
    /// What to do when a vendor may or may not have taken it
    #[arg(long)]
    on_ambiguous: Option<OnAmbiguous>,
    /// A note of your own that its view shows; repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Priority {
    High,
    Normal,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnAmbiguous {
    /// Send it again: it may arrive twice
    Resend,
    /// Leave it: it may not arrive
    Stop,
}

impl Content {
    /// The body of `POST /v1/messages`.
    pub(in crate::cli) fn message(&self, to: &[Recipient]) -> Value {
        let to: Vec<&Value> = to.iter().map(|recipient| &recipient.0).collect();
        let mut message = Map::from_iter([("to".to_owned(), json!(to))]);
        let mut set = |name: &str, value: Option<Value>| {
            value.map(|value| message.insert(name.to_owned(), value));
        };
        let text = |value: &Option<String>| value.as_deref().map(Value::from);
        set("notification", self.notification());
        set("data", object(&self.data));
        set("priority", self.priority.as_ref().map(word));
        set("ttl", text(&self.ttl));
        set("collapse_key", text(&self.collapse_key));
        set("route", text(&self.route));
        set("deliver_at", text(&self.deliver_at));
        set("on_ambiguous", self.on_ambiguous.as_ref().map(word));
        set("metadata", object(&self.metadata));
        Value::Object(message)
    }

    fn notification(&self) -> Option<Value> {
        let texts = [
            ("title", &self.title),
            ("body", &self.body),
            ("image", &self.image),
            ("url", &self.click),
            ("sound", &self.sound),
        ];
        let mut notification: Map<String, Value> = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::from(text.as_deref()?))))
            .collect();
        if let Some(badge) = self.badge {
            notification.insert("badge".to_owned(), Value::from(badge));
        }
        (!notification.is_empty()).then_some(Value::Object(notification))
    }

    /// Whether nothing at all is said of the message.
    pub(in crate::cli) fn is_bare(&self) -> bool {
        self.message(&[]) == json!({"to": []})
    }

    /// Whether there is neither notification nor data.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.notification().is_none() && self.data.is_empty()
    }
}

/// The word on the command line is the API's.
fn word(value: &impl ValueEnum) -> Value {
    Value::from(value.to_possible_value().map(|value| value.get_name().to_owned()))
}

fn object(pairs: &[(String, String)]) -> Option<Value> {
    let object: Map<_, _> =
        pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}
