//! The shapes of requests. They are read by hand, in `intake`; this is written for
//! the description alone, with the same bounds, and a test compares the fields.

use pushyard_providers::address::Need;
use pushyard_providers::registry::{KINDS, Kind};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{Array, Ref};

use super::reference;
use crate::api::view::{Accepted, View};
use crate::intake::{MAX_ADDRESSES, MAX_RECIPIENTS};

/// Without control characters (ECMA-262, as JSON Schema wants it).
const LINE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The longest that can be said of a string's length is in characters; what is
/// bounded in bytes is described by words, too.
const MAX_ADDRESS_FIELD: usize = 4096;

/// The acceptance, or with `?wait=` the view so far.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes two answers of one call")]
pub(in crate::api) enum AcceptedOrView<'a> {
    /// Without `?wait=`.
    Accepted(Accepted<'a>),
    /// With `?wait=`.
    View(View<'a>),
}

/// What requests refer to, by name.
pub(super) fn shapes() -> Map<String, Value> {
    [
        ("Message", message()),
        ("Recipient", recipient()),
        ("Notification", notification()),
        ("Address", address()),
        ("DeviceRequest", device()),
        ("DeviceAddress", device_address()),
        ("CancelRequest", cancel()),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .into_iter()
    .collect()
}

/// A list of addresses as they are answered.
pub(in crate::api) fn device_addresses() -> Array {
    Array::new(Ref::from_schema_name("DeviceAddress"))
}

/// A name in a path.
pub(super) fn name() -> Value {
    line(1, 256, None)
}

fn message() -> Value {
    json!({
        "description": "What is to be sent, to whom, until when. It needs a notification, data, \
                        or both.",
        "type": "object",
        "additionalProperties": false,
        "required": ["to"],
        "anyOf": [
            {"required": ["notification"]},
            {"required": ["data"], "properties": {"data": {"minProperties": 1}}},
        ],
        "properties": {
            "to": {
                "description": "The recipients: one delivery each, or one for each device of a \
                                user.",
                "type": "array",
                "items": reference("schemas", "Recipient"),
                "minItems": 1,
                "maxItems": MAX_RECIPIENTS,
            },
            "notification": reference("schemas", "Notification"),
            "data": {
                "description": "String pairs for the app. The keys `aps` and `pushyard` are taken.",
                "type": "object",
                "propertyNames": {"not": {"enum": ["aps", "pushyard"]}},
                "additionalProperties": {"type": "string"},
                "example": {"order": "4711"},
            },
            "priority": {
                "description": "`high`, the default with a notification, wakes the device; \
                                `normal`, the default without, lets it choose the time.",
                "type": "string",
                "enum": ["high", "normal"],
            },
            "ttl": {
                "description": "How long it is worth sending: a duration or seconds, at most 28 \
                                days. `0s`: now or never.",
                "oneOf": [
                    duration(&["30s", "4h", "7d"]),
                    {"type": "integer", "minimum": 0, "maximum": 28 * 24 * 3600},
                ],
                "default": "24h",
            },
            "collapse_key": line(1, 1024, Some(
                "A newer message of the same key replaces an older one. At most 1024 bytes.",
            )),
            "deliver_at": {
                "description": "Not before this moment, at most 28 days ahead. The past means now.",
                "type": "string",
                "format": "date-time",
                "example": "2026-12-01T08:00:00Z",
            },
            "route": {
                "description": "The policy that chooses providers: `default`, else the only one \
                                there is.",
                "type": "string",
                "example": "default",
            },
            "on_ambiguous": {
                "description": "After an attempt whose end is unknown: `resend` (at least once) \
                                or `stop` (at most once).",
                "type": "string",
                "enum": ["resend", "stop"],
                "default": "resend",
            },
            "durability": {
                "description": "Whether the answer waits for the disk.",
                "type": "string",
                "enum": ["disk", "memory"],
                "default": "disk",
            },
            "overrides": {
                "description": "By kind: a JSON merge patch (RFC 7396) over the vendor's payload.",
                "type": "object",
                "additionalProperties": false,
                "properties": kinds(|_| json!({"type": "object"})),
                "example": {"apns": {"aps": {"interruption-level": "time-sensitive"}}},
            },
            "metadata": labels(),
            "idempotency_key": {
                "description": "As the header `Idempotency-Key`; what the lines of a batch use.",
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "pattern": "^[ -~]*$",
                "example": "order-4711-shipped",
            },
        },
    })
}

fn recipient() -> Value {
    json!({
        "description": "One device or app installation by its addresses, or all devices of a \
                        registered user by the user's name.",
        "oneOf": [
            {
                "title": "by addresses",
                "type": "object",
                "additionalProperties": false,
                "required": ["addresses"],
                "properties": {
                    "addresses": addresses("The ways to reach it."),
                    "ref": line(0, 256, Some(
                        "Your name for it; comes back with everything that is told about it.",
                    )),
                    "region": region(),
                },
            },
            {
                "title": "by name",
                "type": "object",
                "additionalProperties": false,
                "required": ["user"],
                "properties": {"user": line(1, 256, Some("Your name for the user."))},
            },
        ],
    })
}

fn notification() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": "What the device shows.",
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "properties": {
            "title": text("First line."),
            "body": text("Text."),
            "image": text("URL of a picture."),
            "url": text("What opens on a click."),
            "sound": text("Sound name; `default` is the system's."),
            "badge": {
                "description": "The number on the app's icon; 0 clears it.",
                "type": "integer",
                "minimum": 0,
                "maximum": u32::MAX,
            },
            "category": text("Set of actions that the app has registered."),
            "thread": text("Notifications of one thread are grouped."),
            "tag": text("A shown notification of the same tag is replaced."),
        },
    })
}

fn address() -> Value {
    let each = KINDS.iter().map(|kind| address_of(kind));
    json!({
        "description": "A way to reach a device; its fields follow from its kind.",
        "oneOf": each.collect::<Vec<_>>(),
    })
}

fn address_of(kind: &Kind) -> Value {
    let with = |need| kind.fields.iter().filter(move |field| field.need == need);
    let mut properties = Map::from_iter([
        ("kind".to_owned(), json!({"type": "string", "enum": [kind.name]})),
        (
            "provider".to_owned(),
            json!({"type": "string", "description": "Only this provider may use it."}),
        ),
        ("registered_at".to_owned(), time("When the app registered it.")),
    ]);
    let choices: Vec<_> = with(Need::OneOf).map(|field| format!("`{}`", field.name)).collect();
    let one = format!("Exactly one of {}.", choices.join(", "));
    for field in kind.fields {
        let about = match field.need {
            Need::Required | Need::Optional => None,
            Need::OneOf => Some(one.clone()),
            Need::Unless(other) => Some(format!("Required, or `{other}`.")),
        };
        let about = about.as_deref();
        properties.insert(field.name.to_owned(), line(1, MAX_ADDRESS_FIELD, about));
    }
    let required = with(Need::Required).map(|field| field.name);
    let mut shape = json!({
        "title": kind.name,
        "type": "object",
        "additionalProperties": false,
        "required": std::iter::once("kind").chain(required).collect::<Vec<_>>(),
        "properties": properties,
    });
    // A field, or the one in its place.
    let either = kind.fields.iter().filter_map(|field| match field.need {
        Need::Unless(other) => Some([field.name, other]),
        Need::Required | Need::Optional | Need::OneOf => None,
    });
    let names = with(Need::OneOf).map(|field| field.name).chain(either.flatten());
    let choices: Vec<_> = names.map(|name| json!({"required": [name]})).collect();
    if !choices.is_empty() {
        shape["oneOf"] = choices.into();
    }
    shape
}

fn device() -> Value {
    let mut region = region();
    region["type"] = json!(["string", "null"]);
    let addresses =
        addresses("The ways to reach it. One without `registered_at` is registered now.");
    json!({
        "description": "What a device is to be.",
        "type": "object",
        "additionalProperties": false,
        "required": ["addresses"],
        "properties": {"addresses": addresses, "region": region, "metadata": labels()},
    })
}

/// An address as it is answered.
fn device_address() -> Value {
    json!({
        "description": "A way to reach a device, as it was put.",
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {"type": "string"},
            "registered_at": time("When the app registered it."),
            "gone": {
                "description": "The providers whose vendor declared it gone, and when.",
                "type": "object",
                "additionalProperties": {"type": "string", "format": "date-time"},
            },
        },
        "additionalProperties": {"type": "string"},
    })
}

fn cancel() -> Value {
    json!({
        "description": "Which messages to take back; at least one label, or a `ref`.",
        "type": "object",
        "additionalProperties": false,
        "anyOf": [
            {"required": ["ref"]},
            {"required": ["metadata"], "properties": {"metadata": {"minProperties": 1}}},
        ],
        "properties": {
            "metadata": labels(),
            "ref": line(1, 256, Some("Deliveries to recipients of this name alone.")),
        },
    })
}

fn kinds(shape: impl Fn(&Kind) -> Value) -> Map<String, Value> {
    KINDS.iter().map(|kind| (kind.name.to_owned(), shape(kind))).collect()
}

fn addresses(description: &str) -> Value {
    json!({
        "description": description,
        "type": "array",
        "items": reference("schemas", "Address"),
        "minItems": 1,
        "maxItems": MAX_ADDRESSES,
    })
}

fn region() -> Value {
    line(1, 64, Some("Only providers of this region, or of none, may serve it."))
}

fn labels() -> Value {
    json!({
        "description": "Your own labels: at most 64, keys of at most 64 bytes, values of at most \
                        1 KiB.",
        "type": "object",
        "maxProperties": 64,
        "propertyNames": {"minLength": 1, "maxLength": 64},
        "additionalProperties": {"type": "string", "maxLength": 1024},
        "example": {"campaign": "autumn"},
    })
}

fn line(least: usize, most: usize, description: Option<&str>) -> Value {
    let mut line = json!({"type": "string", "maxLength": most, "pattern": LINE});
    if least > 0 {
        line["minLength"] = json!(least);
    }
    if let Some(description) = description {
        line["description"] = json!(description);
    }
    line
}

/// As durations are written mostly; more is read (`1h 30m`, `90 min`).
pub(super) fn duration(examples: &[&str]) -> Value {
    json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": examples})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}
