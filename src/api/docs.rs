//! `GET /docs`: the description as a page for people, made of it at the start.
//!
//! One page of plain HTML, without a script and without anything from elsewhere: it
//! reads the same on a machine that has no internet, and there is nothing to keep up
//! to date. Styles are inline, and the policy names their hash.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Shared;
use super::openapi::examples;

/// What every call has is said once.
const EVERY_ANSWER: [&str; 3] = ["405", "431", "500"];
const EVERY_PARAMETER: &str = "X-Request-Id";

const STYLE: &str = include_str!("docs.css");

/// The page, and what a browser may do with it.
#[derive(Debug)]
pub(super) struct Docs {
    page: Bytes,
    policy: String,
}

/// Show this API.
///
/// The same as `/openapi.json`, as a page to read.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = "meta",
    security(()),
    responses((status = 200, description = "A page.", body = String, content_type = "text/html"))
)]
pub(super) async fn show(State(shared): State<Arc<Shared>>) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &shared.docs.policy),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Bytes::clone(&shared.docs.page)).into_response()
}

impl Docs {
    /// Of the whole description.
    pub(super) fn of(document: &Value) -> Self {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        Self { page: page(document).into(), policy }
    }
}

/// A call, with what its path says for all of them.
struct Call<'d> {
    method: &'d str,
    path: &'d str,
    /// Of the path and of its own.
    parameters: Vec<&'d Value>,
    operation: &'d Value,
}

impl Call<'_> {
    fn id(&self) -> &str {
        text(&self.operation["operationId"])
    }

    /// The examples of a place, as they are written.
    fn examples(&self, place: &str) -> Vec<(&'static str, String)> {
        let of_call = examples::all();
        let found = of_call.get(self.id()).and_then(|places| places.get(place));
        let shown = |(name, raw): (&&'static str, &&'static RawValue)| (*name, dedent(raw.get()));
        found.into_iter().flatten().map(shown).collect()
    }
}

fn page(document: &Value) -> String {
    let calls = calls(document);
    let info = &document["info"];
    let (mut index, mut sections) = (String::new(), String::new());
    for tag in list(&document["tags"]) {
        let name = escaped(&tag["name"]);
        index += &format!("<h2>{name}</h2><ul>");
        sections += &format!("<section id=\"{name}\"><h2>{name}</h2>");
        sections += &prose(&tag["description"]);
        for call in calls.iter().filter(|call| list(&call.operation["tags"]).contains(&tag["name"]))
        {
            let (id, summary) = (escaped(&call.operation["operationId"]), summary(call));
            index += &format!("<li><a href=\"#{id}\">{summary}</a></li>");
            sections += &article(call, document);
        }
        index += "</ul>";
        sections += "</section>";
    }
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} API</title><style>{STYLE}</style></head>\
         <body><nav>{index}<h2>More</h2><ul><li><a href=\"#problems\">Problems</a></li>\
         <li><a href=\"#shapes\">Shapes</a></li></ul></nav>\
         <main><h1>{title} <small>{version}</small></h1>{about}\
         <p>Send your key as <code>Authorization: Bearer KEY</code>. Programs read this page's \
         contents from <a href=\"/openapi.json\">/openapi.json</a>.</p>\
         <p>Every answer has the header <code>X-Request-Id</code>: yours, if you sent one of 1 to \
         128 printable characters. Every call may also end with 405 (<code>Allow</code> has the \
         methods), 431 (too many or too large headers), 500 (a fault of the server) and 503 \
         <code>overloaded</code>. After 429 and 503 wait for <code>Retry-After</code>.</p>\
         {sections}{problems}{shapes}</main></body></html>\n",
        title = escaped(&info["title"]),
        version = escaped(&info["version"]),
        about = prose(&info["description"]),
        problems = problems(document),
        shapes = shapes(document),
    )
}

fn calls(document: &Value) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    for (path, item) in members(&document["paths"]) {
        for method in ["post", "put", "get", "delete"] {
            let Some(operation) = item.get(method) else { continue };
            let both = list(&item["parameters"]).iter().chain(list(&operation["parameters"]));
            let parameters = both.map(|parameter| resolve(parameter, document)).collect();
            calls.push(Call { method, path, parameters, operation });
        }
    }
    calls
}

fn article(call: &Call<'_>, document: &Value) -> String {
    let mut html = format!(
        "<article id=\"{}\"><h3>{}</h3><p class=\"call\"><span class=\"{}\">{}</span> {}</p>{}",
        escape(call.id()),
        summary(call),
        call.method,
        call.method.to_uppercase(),
        escape(call.path),
        prose(&call.operation["description"]),
    );
    if list(&call.operation["security"]).iter().any(|needed| members(needed).next().is_none()) {
        html += "<p class=\"quiet\">No key is needed.</p>";
    }
    let own = call.parameters.iter().filter(|parameter| parameter["name"] != EVERY_PARAMETER);
    let rows = own.map(|parameter| {
        let shape = &parameter["schema"];
        let about = prose(parameter.get("description").unwrap_or(&shape["description"]));
        let place = escaped(&parameter["in"]);
        row(text(&parameter["name"]), &place, shape, &about)
    });
    let rows: String = rows.collect();
    if !rows.is_empty() {
        html += &format!("<h4>Parameters</h4><table>{rows}</table>");
    }
    let body = &call.operation["requestBody"];
    for (kind, content) in members(&body["content"]) {
        html += &format!("<h4>Body <code>{}</code></h4>", escape(kind));
        html += &prose(&body["description"]);
        html += &fields(resolve(&content["schema"], document), document);
    }
    html += &format!("<h4>Example</h4><pre>{}</pre>", escape(&curl(call)));
    html += "<h4>Answers</h4><table class=\"answers\">";
    let answers = members(&call.operation["responses"]);
    for (status, answer) in answers.filter(|(status, _)| !EVERY_ANSWER.contains(&status.as_str())) {
        html += &format!(
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(status),
            answered(call, status, answer)
        );
    }
    html + "</table></article>"
}

/// An answer: what it means, what it has, and what it looks like.
fn answered(call: &Call<'_>, status: &str, answer: &Value) -> String {
    let mut html = prose(&answer["description"]);
    for (kind, content) in members(&answer["content"]) {
        if kind != "application/problem+json" {
            html += &format!("<p>{} <code>{}</code></p>", shape(&content["schema"]), escape(kind));
        }
    }
    for (name, example) in call.examples(status) {
        html += &format!(
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(name),
            escape(&example)
        );
    }
    html
}

/// The first example as a command.
fn curl(call: &Call<'_>) -> String {
    let mut path = call.path.to_owned();
    for parameter in call.parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = format!("{{{}}}", text(&parameter["name"]));
        path = path.replace(&name, text(&parameter["example"]));
    }
    let method = match call.method {
        "get" => String::new(),
        other => format!(" --request {}", other.to_uppercase()),
    };
    let mut command = format!("curl{method} http://127.0.0.1:8080{path}");
    if list(&call.operation["security"]).iter().any(|needed| needed.get("key").is_some()) {
        command += " \\\n  --header 'Authorization: Bearer KEY'";
    }
    if let Some((kind, _)) = members(&call.operation["requestBody"]["content"]).next() {
        command += &format!(" \\\n  --header 'Content-Type: {kind}'");
        // Line ends matter where a line is a message.
        let option = if kind == "application/json" { "--data" } else { "--data-binary" };
        if let Some((_, body)) = call.examples("request").into_iter().next() {
            command += &format!(" \\\n  {option} '{}'", body.replace('\'', "'\\''"));
        }
    }
    command
}

/// Every code with its status and what one of them says.
fn problems(document: &Value) -> String {
    let rows = members(&document["components"]["examples"]).map(|(code, example)| {
        let problem = &example["value"];
        format!(
            "<tr><td><code>{}</code></td><td>{} {}</td><td>{}</td></tr>",
            escape(code),
            problem["status"],
            escaped(&problem["title"]),
            escaped(&problem["detail"]),
        )
    });
    format!(
        "<section id=\"problems\"><h2>Problems</h2><p>What is refused is answered with \
         <code>application/problem+json</code> (RFC 9457), but for 408 and 431, which have no \
         body. <code>code</code> is for programs; <code>detail</code> says what was wrong and \
         what to do; <code>errors</code> has every fault of the request.</p>\
         <table>{}</table></section>",
        rows.collect::<String>()
    )
}

fn shapes(document: &Value) -> String {
    let each = members(&document["components"]["schemas"]).map(|(name, shape)| {
        let name = escape(name);
        format!(
            "<article id=\"shape-{name}\"><h3>{name}</h3>{}{}</article>",
            prose(&shape["description"]),
            fields(shape, document)
        )
    });
    format!("<section id=\"shapes\"><h2>Shapes</h2>{}</section>", each.collect::<String>())
}

/// The fields of an object, what it must have first; or of each that it may be.
fn fields(of: &Value, document: &Value) -> String {
    let mut html = String::new();
    if of.get("properties").is_some() {
        let is_required = |name: &String| list(&of["required"]).iter().any(|one| one == name);
        let rows = |required: bool| {
            let some = members(&of["properties"]);
            let some = some.filter(move |(name, _)| is_required(name) == required);
            let note = if required { "required" } else { "" };
            some.map(move |(name, field)| {
                row(name, note, field, &prose(&resolve(field, document)["description"]))
            })
        };
        html += &format!("<table>{}</table>", rows(true).chain(rows(false)).collect::<String>());
    }
    for way in ["oneOf", "allOf"].into_iter().flat_map(|key| list(&of[key])) {
        let title = escaped(&way["title"]);
        html += &match way.get("$ref") {
            Some(_) => format!("<p>{}</p>", shape(way)),
            None if title.is_empty() => fields(way, document),
            None => format!("<h4>{title}</h4>{}", fields(way, document)),
        };
    }
    html
}

fn row(name: &str, note: &str, field: &Value, about: &str) -> String {
    let note = if note.is_empty() {
        String::new()
    } else {
        format!(" <span class=\"quiet\">{note}</span>")
    };
    format!(
        "<tr><td><code>{}</code>{note}</td><td>{}{}</td><td>{about}</td></tr>",
        escape(name),
        shape(field),
        bounds(field)
    )
}

/// What a value is, in a few words.
fn shape(of: &Value) -> String {
    if let Some(name) = of["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#shape-{name}\">{name}</a>");
    }
    if of.get("enum").is_some() {
        let words = list(&of["enum"]).iter().map(|word| match word.as_str() {
            Some(word) => format!("<code>{}</code>", escape(word)),
            None => word.to_string(),
        });
        return words.collect::<Vec<_>>().join(", ");
    }
    if of.get("oneOf").is_some() {
        return list(&of["oneOf"]).iter().map(shape).collect::<Vec<_>>().join(" or ");
    }
    let kinds = match &of["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        one => text(one).to_owned(),
    };
    match &*kinds {
        "array" => format!("list of {}", shape(&of["items"])),
        "object" if of["additionalProperties"].is_object() => {
            format!("object of {}", shape(&of["additionalProperties"]))
        }
        _ => match of["format"].as_str() {
            Some(format @ ("date-time" | "uuid")) => format!("{kinds}, {format}"),
            Some(_) | None => escape(&kinds),
        },
    }
}

/// How much it may be, and what it is when it is not given.
fn bounds(of: &Value) -> String {
    let range = |least: &str, most: &str, unit: &str| {
        let said = match (&of[least], &of[most]) {
            (Value::Null, Value::Null) => return None,
            (least, Value::Null) => format!("at least {least}{unit}"),
            (Value::Null, most) => format!("at most {most}{unit}"),
            (least, most) => format!("{least} to {most}{unit}"),
        };
        Some(said)
    };
    let all = [
        range("minimum", "maximum", ""),
        range("minLength", "maxLength", " characters"),
        range("minItems", "maxItems", " items"),
        of.get("default").map(|value| format!("default {}", escaped(value))),
    ];
    let said: Vec<_> = all.into_iter().flatten().collect();
    if said.is_empty() {
        String::new()
    } else {
        format!("<br><span class=\"quiet\">{}</span>", said.join("; "))
    }
}

fn summary(call: &Call<'_>) -> String {
    inline(text(&call.operation["summary"]).trim_end_matches('.'))
}

/// Paragraphs, with code between backticks.
fn prose(of: &Value) -> String {
    let paragraphs = text(of).split("\n\n").filter(|paragraph| !paragraph.is_empty());
    paragraphs.map(|paragraph| format!("<p>{}</p>", inline(paragraph))).collect()
}

fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(n, part)| {
        let part = escape(part);
        if n % 2 == 1 { format!("<code>{part}</code>") } else { part }
    });
    parts.collect()
}

/// A value from within a file, moved to the left margin.
fn dedent(raw: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let margin = raw.lines().skip(1).map(indent).min().unwrap_or_default();
    let lines = raw.lines().enumerate();
    let lines = lines.map(|(n, line)| line.get(if n == 0 { 0 } else { margin }..).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn resolve<'d>(value: &'d Value, document: &'d Value) -> &'d Value {
    let place = value["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    place.and_then(|place| document.pointer(place)).unwrap_or(value)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(value: &Value) -> String {
    escape(text(value))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
