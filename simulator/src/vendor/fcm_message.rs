//! FCM's `messages:send` body: what it may contain, and what we need of it.
//!
//! The table below is the documented resource (Firebase documentation, "REST
//! Resource: projects.messages"); [`read`] walks a body along it and answers
//! with the target, the router's delivery, or everything that is wrong.

use super::json_shape::{Field, Kind, Observer, Path, Violation};
use super::json_walk::walk;
use crate::ledger::Key;

/// A body that FCM would take.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) validate_only: bool,
    /// Token, installation id, topic or condition.
    pub(super) target: String,
    /// Whether that is one device.
    pub(super) is_device: bool,
    /// `data.pushyard`, when the router sent it.
    pub(super) key: Option<Key>,
}

/// Why a body is refused.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not JSON.
    Syntax(String),
    /// Names or types are wrong.
    Shape(Vec<Violation>),
    /// It is bigger than this many bytes.
    Size(usize),
}

/// The limit on keys and values to a device, and the one to a topic.
const DEVICE_LIMIT: usize = 4096;
const TOPIC_LIMIT: usize = 2048;
/// 28 days, the longest `ttl`.
const MAX_TTL_S: u64 = 2_419_200;

pub(super) fn read(body: &[u8]) -> Result<Message, Fault> {
    let mut reading = Reading::default();
    walk(body, &REQUEST, &mut reading).map_err(|error| Fault::Syntax(error.to_string()))?;
    if reading.violations.is_empty() && reading.targets != 1 {
        reading.violations.push(Violation {
            field: "message".to_owned(),
            description: "Recipient of the message is not set: exactly one of token, fid, topic \
                          and condition is needed."
                .to_owned(),
        });
    }
    if !reading.violations.is_empty() {
        return Err(Fault::Shape(reading.violations));
    }
    // A device is sent the common part and that of its own platform.
    let size = reading.common + reading.platforms.into_iter().max().unwrap_or(0);
    let limit = if reading.to_topic { TOPIC_LIMIT } else { DEVICE_LIMIT };
    if size > limit {
        return Err(Fault::Size(limit));
    }
    Ok(Message {
        validate_only: reading.validate_only,
        target: reading.target,
        is_device: !reading.to_topic,
        key: reading.key,
    })
}

#[derive(Default)]
struct Reading {
    validate_only: bool,
    target: String,
    targets: u32,
    to_topic: bool,
    key: Option<Key>,
    pushyard_is_next: bool,
    common: usize,
    platforms: [usize; 3],
    violations: Vec<Violation>,
}

impl Reading {
    fn count(&mut self, path: &Path<'_>, bytes: usize) {
        match path.name_at(1) {
            Some("data" | "notification") => self.common += bytes,
            Some("android") => self.platforms[0] += bytes,
            Some("apns") => self.platforms[1] += bytes,
            Some("webpush") => self.platforms[2] += bytes,
            _ => {}
        }
    }
}

impl Observer for Reading {
    fn text(&mut self, path: &Path<'_>, text: &str) {
        if std::mem::take(&mut self.pushyard_is_next) {
            self.key = Some(Key::of_pushyard(text));
        }
        match path {
            Path::Name(Path::Name(Path::Root, _), "token" | "fid") => {
                text.clone_into(&mut self.target);
                self.targets += 1;
            }
            Path::Name(Path::Name(Path::Root, _), "topic" | "condition") => {
                text.clone_into(&mut self.target);
                self.targets += 1;
                self.to_topic = true;
            }
            _ => self.count(path, text.len()),
        }
    }

    fn flag(&mut self, path: &Path<'_>, flag: bool) {
        if path.is(&["validate_only"]) {
            self.validate_only = flag;
        }
    }

    fn key(&mut self, path: &Path<'_>, key: &str) {
        self.pushyard_is_next = key == "pushyard" && path.is(&["message", "data"]);
        self.count(path, key.len());
    }

    fn violation(&mut self, violation: Violation) {
        self.violations.push(violation);
    }
}

const ANY: Kind = Kind::Text(|_| None);

static REQUEST: Kind = Kind::Object(&[
    Field::new("validate_only", Kind::Flag),
    Field::required("message", Kind::Object(MESSAGE)),
]);

static MESSAGE: &[Field] = &[
    // Output only; the parser takes it.
    Field::new("name", ANY),
    Field::new("token", Kind::Text(not_empty)),
    Field::new("fid", Kind::Text(not_empty)),
    Field::new("topic", Kind::Text(topic)),
    Field::new("condition", Kind::Text(condition)),
    Field::new("data", Kind::Texts(data_key)),
    Field::new(
        "notification",
        Kind::Object(&[
            Field::new("title", ANY),
            Field::new("body", ANY),
            Field::new("image", ANY),
        ]),
    ),
    Field::new("android", Kind::Object(ANDROID)),
    Field::new(
        "apns",
        Kind::Object(&[
            Field::new("headers", Kind::Texts(|_| None)),
            Field::new("payload", Kind::Free),
            Field::new("fcm_options", Kind::Object(&[LABEL, Field::new("image", ANY)])),
            Field::new("live_activity_token", ANY),
        ]),
    ),
    Field::new(
        "webpush",
        Kind::Object(&[
            Field::new("headers", Kind::Texts(|_| None)),
            Field::new("data", Kind::Texts(data_key)),
            Field::new("notification", Kind::Free),
            Field::new(
                "fcm_options",
                Kind::Object(&[Field::new("link", Kind::Text(https)), LABEL]),
            ),
        ]),
    ),
    Field::new("fcm_options", Kind::Object(&[LABEL])),
];

const LABEL: Field = Field::new("analytics_label", Kind::Text(label));

static ANDROID: &[Field] = &[
    Field::new("collapse_key", ANY),
    Field::new("priority", Kind::Word(&["NORMAL", "HIGH"])),
    Field::new("ttl", Kind::Text(ttl)),
    Field::new("restricted_package_name", ANY),
    Field::new("data", Kind::Texts(data_key)),
    Field::new("notification", Kind::Object(ANDROID_NOTIFICATION)),
    Field::new("fcm_options", Kind::Object(&[LABEL])),
    Field::new("direct_boot_ok", Kind::Flag),
    Field::new("bandwidth_constrained_ok", Kind::Flag),
    Field::new("restricted_satellite_ok", Kind::Flag),
];

static ANDROID_NOTIFICATION: &[Field] = &[
    Field::new("title", ANY),
    Field::new("body", ANY),
    Field::new("icon", ANY),
    Field::new("color", Kind::Text(color)),
    Field::new("sound", ANY),
    Field::new("tag", ANY),
    Field::new("click_action", ANY),
    Field::new("body_loc_key", ANY),
    Field::new("body_loc_args", Kind::List(&ANY)),
    Field::new("title_loc_key", ANY),
    Field::new("title_loc_args", Kind::List(&ANY)),
    Field::new("channel_id", ANY),
    Field::new("ticker", ANY),
    Field::new("sticky", Kind::Flag),
    Field::new("event_time", Kind::Text(time)),
    Field::new("local_only", Kind::Flag),
    Field::new(
        "notification_priority",
        Kind::Word(&[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]),
    ),
    Field::new("default_sound", Kind::Flag),
    Field::new("default_vibrate_timings", Kind::Flag),
    Field::new("default_light_settings", Kind::Flag),
    Field::new("vibrate_timings", Kind::List(&Kind::Text(duration))),
    Field::new(
        "visibility",
        Kind::Word(&["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"]),
    ),
    Field::new("notification_count", Kind::Int),
    Field::new(
        "light_settings",
        Kind::Object(&[
            Field::required(
                "color",
                Kind::Object(&[
                    Field::new("red", Kind::Ratio),
                    Field::new("green", Kind::Ratio),
                    Field::new("blue", Kind::Ratio),
                    Field::new("alpha", Kind::Ratio),
                ]),
            ),
            Field::required("light_on_duration", Kind::Text(duration)),
            Field::required("light_off_duration", Kind::Text(duration)),
        ]),
    ),
    Field::new("image", ANY),
    Field::new("proxy", Kind::Word(&["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"])),
    Field::new("bypass_proxy_notification", Kind::Flag),
];

fn not_empty(text: &str) -> Option<&'static str> {
    text.is_empty().then_some("Recipient of the message is empty.")
}

fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b))
}

fn topic(text: &str) -> Option<&'static str> {
    (text.is_empty() || !is_name(text)).then_some("Invalid topic name.")
}

fn condition(text: &str) -> Option<&'static str> {
    let topics = text.matches(" in topics").count();
    (!(1..=5).contains(&topics)).then_some("Invalid condition expression provided.")
}

fn label(text: &str) -> Option<&'static str> {
    (!(1..=50).contains(&text.len()) || !is_name(text)).then_some("Invalid analytics label.")
}

fn data_key(key: &str) -> Option<&'static str> {
    let reserved = matches!(key, "from" | "message_type" | "notification")
        || key.starts_with("google")
        || key.starts_with("gcm");
    reserved.then_some("Invalid data payload key")
}

fn color(text: &str) -> Option<&'static str> {
    let good = text
        .strip_prefix('#')
        .is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    (!good).then_some("Invalid color, must be in #rrggbb format.")
}

fn https(text: &str) -> Option<&'static str> {
    (!text.starts_with("https://")).then_some("The link must be an https URL.")
}

fn time(text: &str) -> Option<&'static str> {
    text.parse::<jiff::Timestamp>().is_err().then_some("Invalid time, must be in RFC 3339 format.")
}

fn duration(text: &str) -> Option<&'static str> {
    seconds(text).is_none().then_some("Illegal duration format; duration must end with 's'")
}

fn ttl(text: &str) -> Option<&'static str> {
    match seconds(text) {
        None => Some("Illegal duration format; duration must end with 's'"),
        Some((whole, part)) if whole > MAX_TTL_S || (whole == MAX_TTL_S && part) => {
            Some("Invalid TTL, must be within 0 and 2419200 seconds.")
        }
        Some(_) => None,
    }
}

/// `"3.5s"`: whole seconds, and whether a part of one follows.
fn seconds(text: &str) -> Option<(u64, bool)> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(whole) && digits(part) && part.len() <= 9)
        .then(|| Some((whole.parse().ok()?, part.bytes().any(|b| b != b'0'))))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_example_is_taken() {
        let body = r##"{"message":{"token":"abc","data":{"id":"m-42","pushyard":"01970000-0000-7000-8000-000000000001.s"},
         "notification":{"title":"T"},
         "android":{"priority":"HIGH","ttl":"3600s","collapseKey":"order-42","notification":{"title":"T","body":"B","tag":"order-42","color":"#aabbcc"}},
         "apns":{"headers":{"apns-collapse-id":"order-42"},"payload":{"aps":{"alert":{"title":"T"}}}},
         "webpush":{"headers":{"TTL":"60"},"notification":{"title":"T","vibrate":[1,2]},"fcm_options":{"link":"https://example.com"}}}}"##;
        let message = read(body.as_bytes()).unwrap();
        assert_eq!(message.target, "abc");
        assert!(!message.validate_only);
        assert!(matches!(message.key, Some(Key::Id(_))));
    }

    fn violation(message: &str) -> String {
        let body = format!("{{\"message\":{message}}}");
        match read(body.as_bytes()) {
            Err(Fault::Shape(violations)) => violations[0].field.clone(),
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn faults_name_their_field() {
        let table = [
            ("{}", "message"),
            (r#"{"token":"a","topic":"b"}"#, "message"),
            (r#"{"token":""}"#, "message.token"),
            (r#"{"topic":"/topics/a"}"#, "message.topic"),
            (r#"{"token":"a","data":{"k":1}}"#, "message.data[0].value"),
            (r#"{"token":"a","data":{"from":"x"}}"#, "message.data[0].key"),
            (r#"{"token":"a","data":{"google.x":"x"}}"#, "message.data[0].key"),
            (r#"{"token":"a","android":{"ttl":"2419201s"}}"#, "message.android.ttl"),
            (r#"{"token":"a","android":{"ttl":"2419200.5s"}}"#, "message.android.ttl"),
            (r#"{"token":"a","android":{"ttl":"1h"}}"#, "message.android.ttl"),
            (r#"{"token":"a","android":{"priority":"high"}}"#, "message.android.priority"),
            (
                r#"{"token":"a","android":{"notification":{"color":"red"}}}"#,
                "message.android.notification.color",
            ),
            (
                r#"{"token":"a","fcm_options":{"analytics_label":""}}"#,
                "message.fcm_options.analytics_label",
            ),
            (
                r#"{"token":"a","webpush":{"fcm_options":{"link":"http://x"}}}"#,
                "message.webpush.fcm_options.link",
            ),
        ];
        for (message, field) in table {
            assert_eq!(violation(message), field, "{message}");
        }
    }

    #[test]
    fn size_counts_the_common_part_and_the_biggest_platform() {
        let text = |length| "x".repeat(length);
        let body = |data: usize, android: usize, apns: usize| {
            format!(
                r#"{{"message":{{"token":"a","data":{{"k":"{}"}},"android":{{"collapse_key":"{}"}},"apns":{{"live_activity_token":"{}"}}}}}}"#,
                text(data),
                text(android),
                text(apns)
            )
        };
        assert!(read(body(95, 4000, 4000).as_bytes()).is_ok());
        assert!(matches!(read(body(96, 4000, 4000).as_bytes()), Err(Fault::Size(4096))));
    }

    #[test]
    fn topics_take_half() {
        let body =
            format!(r#"{{"message":{{"topic":"a","data":{{"k":"{}"}}}}}}"#, "x".repeat(2048));
        assert!(matches!(read(body.as_bytes()), Err(Fault::Size(2048))));
    }

    #[test]
    fn dry_run_is_seen_in_both_styles() {
        for name in ["validate_only", "validateOnly"] {
            let body = format!(r#"{{"{name}":true,"message":{{"topic":"health-probe"}}}}"#);
            assert!(read(body.as_bytes()).unwrap().validate_only);
        }
    }
}
