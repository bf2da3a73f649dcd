//! `GET /openapi.json`: the description of this listener, made of the handlers
//! that serve it.
//!
//! Shapes that are answered describe themselves; requests are read by hand (so
//! that all faults are told at once), and have their description here, which a
//! test compares with the fields that are read. What all calls have in common
//! (problems, headers, keys) is added once, from the table of [`PROBLEMS`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pushyard_providers::address::Need;
use pushyard_providers::registry::{KINDS, Kind};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, OneOfBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, Header, Object, ObjectBuilder, OpenApi, Ref, RefOr, Response as Described,
    ResponseBuilder, Schema,
};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};

use super::Shared;
use super::messages::json_bytes;
use super::problem::{Code, ProblemShape};
use super::view::{Accepted, View};
use crate::intake::{MAX_ADDRESSES, MAX_RECIPIENTS};

/// The problems of each call, beside those of all calls.
const PROBLEMS: &[(&str, &[Code])] = &[
    (
        "submitMessage",
        &[
            Code::Malformed,
            Code::Forbidden,
            Code::Timeout,
            Code::IdempotencyInProgress,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
            Code::IdempotencyMismatch,
            Code::RateLimited,
            Code::ClientQueueFull,
            Code::QueueFull,
            Code::StoreUnavailable,
            Code::ShuttingDown,
        ],
    ),
    (
        "explainMessage",
        &[
            Code::Malformed,
            Code::Forbidden,
            Code::NotFound,
            Code::Timeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
            Code::StoreUnavailable,
            Code::ShuttingDown,
        ],
    ),
    ("submitMessages", &[Code::UnsupportedMediaType, Code::Invalid, Code::ShuttingDown]),
    ("getMessage", &[Code::NotFound, Code::Invalid, Code::StoreUnavailable]),
    (
        RECEIPT,
        &[
            Code::Malformed,
            Code::NotFound,
            Code::Timeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
        ],
    ),
    (
        "makeStreamToken",
        &[
            Code::Malformed,
            Code::NotFound,
            Code::Timeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
        ],
    ),
    ("listMessages", &[Code::Invalid, Code::StoreUnavailable]),
    (
        "cancelMessages",
        &[
            Code::Malformed,
            Code::Timeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
            Code::StoreUnavailable,
        ],
    ),
    (
        "putDevice",
        &[
            Code::Malformed,
            Code::Timeout,
            Code::TooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
            Code::StoreUnavailable,
            Code::ShuttingDown,
        ],
    ),
    ("getDevice", &[Code::NotFound, Code::StoreUnavailable]),
    ("removeDevice", &[Code::NotFound, Code::StoreUnavailable, Code::ShuttingDown]),
    ("getUser", &[Code::NotFound, Code::StoreUnavailable]),
    ("eraseUser", &[Code::NotFound, Code::StoreUnavailable, Code::ShuttingDown]),
    ("listGoneAddresses", &[Code::Invalid, Code::StoreUnavailable]),
    ("cancelMessage", &[Code::NotFound, Code::Settled, Code::StoreUnavailable]),
];

/// The problems that any call may end with.
const COMMON: &[Code] = &[Code::Internal, Code::Overloaded];

const KEY: &str = "key";

/// The only call with problems of its own that needs no key.
const RECEIPT: &str = "receipt";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Pushyard",
        description = "One durable HTTP API in front of many push providers: hand over a message \
                       for some devices; each is reached through the best healthy provider.",
    ),
    tags((name = "messages", description = "Sending, and what became of it."), (name = "users", description = "Devices that are kept, and forgetting a user."), (name = "addresses", description = "What vendors gave up."), (name = "stream", description = "The devices' own channel."), (name = "meta", description = "About this API.")),
    components(schemas(ProblemShape, AddressRequest)),
)]
struct Base;

/// The description before the calls are added to it.
pub(super) fn base() -> OpenApi {
    let mut document = Base::openapi();
    // The package's own licence and contact say nothing about using the API.
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document
}

/// Adds what all calls have in common.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some("A client's key. Without configured clients none is needed.".into());
    components.add_security_scheme(KEY, SecurityScheme::Http(scheme));
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete_operation(operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete]
        .into_iter()
        .filter_map(Option::as_mut)
}

fn complete_operation(operation: &mut Operation) {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let own = PROBLEMS.iter().find(|(name, _)| *name == id).map(|(_, codes)| *codes);
    let mut codes: Vec<Code> = own.into_iter().flatten().chain(COMMON).copied().collect();
    // Whatever has problems of its own asks for a key, but for devices' word.
    let keyed = own.is_some() && id != RECEIPT;
    if keyed {
        codes.push(Code::Unauthenticated);
        operation.security = Some(vec![SecurityRequirement::new(KEY, Vec::<String>::new())]);
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    let responses = &mut operation.responses.responses;
    for (status, codes) in by_status {
        responses.insert(status.to_string(), RefOr::T(problem(status, &codes)));
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response {
            if keyed && (status.starts_with('2') || status == "429") {
                response.headers.extend(rate_headers());
            }
            let id = header(
                "Names this request; yours, if you sent one of 1 to 128 printable characters.",
                Type::String,
            );
            response.headers.insert("X-Request-Id".to_owned(), RefOr::T(id));
        }
    }
}

fn problem(status: u16, codes: &[Code]) -> Described {
    let words: Vec<_> = codes.iter().map(|code| format!("`{}`", code.word())).collect();
    let mut response = ResponseBuilder::new().description(words.join(", "));
    if !codes.contains(&Code::Timeout) {
        let shape = Ref::from_schema_name("Problem");
        response = response.content("application/problem+json", Content::new(Some(shape)));
    }
    if matches!(status, 429 | 503) || codes.contains(&Code::IdempotencyInProgress) {
        let after = header("Seconds after which to try again, at least 1.", Type::Integer);
        response = response.header("Retry-After", after);
    }
    if status == 401 {
        response = response.header("WWW-Authenticate", header("`Bearer`.", Type::String));
    }
    response.build()
}

/// What a client with a rate is told.
fn rate_headers() -> impl Iterator<Item = (String, RefOr<Header>)> {
    [
        ("RateLimit-Limit", "With a rate: messages that may be sent at once.", Type::Integer),
        ("RateLimit-Remaining", "With a rate: those that may be sent now.", Type::Integer),
        ("RateLimit-Reset", "With a rate: seconds until all may be sent.", Type::Integer),
        ("RateLimit", "The same as the newer draft says it: `\"messages\";r=9;t=1`.", Type::String),
        ("RateLimit-Policy", "With a rate: `\"messages\";q=10;w=2`.", Type::String),
    ]
    .into_iter()
    .map(|(name, text, kind)| (name.to_owned(), RefOr::T(header(text, kind))))
}

fn header(description: &str, kind: Type) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind).build();
    HeaderBuilder::new().schema(Some(Schema::Object(schema))).description(Some(description)).build()
}

/// Describe this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "meta",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value, content_type = "application/json"))
)]
pub(super) async fn describe(State(shared): State<Arc<Shared>>) -> Response {
    json_bytes(StatusCode::OK, Bytes::clone(&shared.openapi))
}

/// The acceptance, or with `?wait=` the view so far.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes two answers of one call")]
pub(super) enum AcceptedOrView<'a> {
    /// Without `?wait=`.
    Accepted(Accepted<'a>),
    /// With `?wait=`.
    View(View<'a>),
}

/// What is to be sent, to whom, until when.
#[derive(Debug, ToSchema)]
#[schema(as = Message)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `intake::validate` reads")]
pub(super) struct MessageRequest {
    /// The recipients: one delivery each.
    #[schema(min_items = 1, max_items = 1000)]
    to: Vec<RecipientRequest>,
    /// What the device shows. This or `data` is required.
    #[schema(nullable = false)]
    notification: Option<NotificationRequest>,
    /// String pairs for the app. The keys `aps` and `pushyard` are taken.
    #[schema(nullable = false)]
    data: Option<BTreeMap<String, String>>,
    #[schema(schema_with = priority)]
    priority: Option<String>,
    #[schema(schema_with = ttl)]
    ttl: Option<String>,
    /// A newer message of the same key replaces an older one.
    #[schema(nullable = false, min_length = 1, max_length = 1024)]
    collapse_key: Option<String>,
    /// Not before this moment, at most 28 days ahead. The past means now.
    #[schema(nullable = false, format = DateTime)]
    deliver_at: Option<String>,
    /// The policy that chooses providers: `default`, else the only one there is.
    #[schema(nullable = false)]
    route: Option<String>,
    #[schema(schema_with = on_ambiguous)]
    on_ambiguous: Option<String>,
    #[schema(schema_with = durability)]
    durability: Option<String>,
    #[schema(schema_with = overrides)]
    overrides: Option<BTreeMap<String, serde_json::Value>>,
    /// Your own labels: at most 64, keys of at most 64 bytes, values of at most 1 KiB.
    #[schema(nullable = false)]
    metadata: Option<BTreeMap<String, String>>,
    /// As the header `Idempotency-Key`; what the lines of a batch use.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// One device or app installation, by its addresses; or a registered user, by name.
#[derive(Debug, ToSchema)]
#[schema(as = Recipient)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `intake::recipients` reads")]
pub(super) struct RecipientRequest {
    /// Your name for it; comes back with everything that is told about it.
    #[schema(nullable = false, max_length = 256)]
    r#ref: Option<String>,
    /// Only providers of this region, or of none, may serve it.
    #[schema(nullable = false, min_length = 1, max_length = 64)]
    region: Option<String>,
    #[schema(schema_with = addresses)]
    addresses: Option<Vec<AddressRequest>>,
    /// A registered user, instead of addresses.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    user: Option<String>,
}

/// What the device shows.
#[derive(Debug, ToSchema)]
#[schema(as = Notification)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `intake::validate` reads")]
pub(super) struct NotificationRequest {
    /// First line.
    #[schema(nullable = false)]
    title: Option<String>,
    /// Text.
    #[schema(nullable = false)]
    body: Option<String>,
    /// URL of a picture.
    #[schema(nullable = false)]
    image: Option<String>,
    /// What opens on a click.
    #[schema(nullable = false)]
    url: Option<String>,
    /// Sound name; `default` is the system's.
    #[schema(nullable = false)]
    sound: Option<String>,
    /// The number on the app's icon; 0 clears it.
    #[schema(nullable = false)]
    badge: Option<u32>,
    /// Set of actions that the app has registered.
    #[schema(nullable = false)]
    category: Option<String>,
    /// Notifications of one thread are grouped.
    #[schema(nullable = false)]
    thread: Option<String>,
    /// A shown notification of the same tag is replaced.
    #[schema(nullable = false)]
    tag: Option<String>,
}

/// A way to reach a device; its fields follow from its kind.
#[derive(Debug)]
pub(super) struct AddressRequest;

impl ToSchema for AddressRequest {
    fn name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }
}

impl PartialSchema for AddressRequest {
    fn schema() -> RefOr<Schema> {
        let kinds = KINDS.iter().fold(OneOfBuilder::new(), |all, kind| all.item(address(kind)));
        let description = "A way to reach a device; its fields follow from its kind.";
        kinds.description(Some(description)).into()
    }
}

fn address(kind: &Kind) -> Object {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .title(Some(kind.name))
        .property("kind", text().enum_values(Some([kind.name])))
        .required("kind")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    for field in kind.fields {
        let described = match field.need {
            Need::Required | Need::Optional => text(),
            Need::OneOf => text().description(Some("Exactly one of those described so.")),
            Need::Unless(other) => text().description(Some(format!("Required, or `{other}`."))),
        };
        object = object.property(field.name, described.min_length(Some(1)));
        if field.need == Need::Required {
            object = object.required(field.name);
        }
    }
    let provider = text().description(Some("Only this provider may use it."));
    let time = utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::DateTime);
    let registered = text().format(Some(time)).description(Some("When the app registered it."));
    object.property("provider", provider).property("registered_at", registered).build()
}

pub(super) fn addresses() -> RefOr<Schema> {
    ArrayBuilder::new()
        .items(Ref::from_schema_name("Address"))
        .min_items(Some(1))
        .max_items(Some(MAX_ADDRESSES))
        .description(Some("The ways to reach it. This or `user` is required."))
        .into()
}

fn one_of(words: [&'static str; 2], description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words))
        .description(Some(description))
}

fn priority() -> Object {
    let description = "`high`, the default with a notification, wakes the device; \
                       `normal` lets it choose the time.";
    one_of(["high", "normal"], description).build()
}

fn on_ambiguous() -> Object {
    let description = "After an attempt whose end is unknown: `resend` (at least once) or \
                       `stop` (at most once).";
    one_of(["resend", "stop"], description).default(Some("resend".into())).build()
}

fn durability() -> Object {
    let description = "Whether the answer waits for the disk.";
    one_of(["disk", "memory"], description).default(Some("disk".into())).build()
}

fn ttl() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).examples(["30s", "4h", "7d"]);
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(28 * 24 * 3600));
    let description = "How long it is worth sending: a duration or seconds, at most 28 days. \
                       `0s`: now or never.";
    OneOfBuilder::new()
        .item(text)
        .item(seconds)
        .default(Some("24h".into()))
        .description(Some(description))
        .into()
}

fn overrides() -> Object {
    let patch = || ObjectBuilder::new().schema_type(Type::Object);
    KINDS
        .iter()
        .fold(patch(), |all, kind| all.property(kind.name, patch()))
        .description(Some("By kind: a JSON merge patch (RFC 7396) over the vendor's payload."))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .build()
}

/// The bounds in the attributes above are literals; these keep them true.
const _: () = assert!(MAX_RECIPIENTS == 1000);
