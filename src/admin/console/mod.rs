//! The console: one static page for whoever is on call, and its files.
//!
//! It is part of the binary and needs nothing from elsewhere, because it is opened
//! when things are broken. The page is open to all: it holds no data, and asks for
//! the key that the admin API wants. It reads that API and nothing else, so there
//! is nothing that the console can do and a script cannot.
//!
//! The files are plain scripts and styles without a build step: what is served is
//! what is in this folder. The policy below lets the browser load these files and
//! speak with this listener, and nothing more: a name or a vendor's text that
//! looks like markup can neither run nor load anything.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::{Problem, Segment};

/// What the page may do (Content Security Policy Level 3).
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Kept, but asked for each time: after an upgrade nobody looks at half of an old
/// page, and an unchanged file costs a 304.
const CACHING: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Name, content type, content. The first is the page.
const FILES: &[(&str, &str, &str)] = &[
    ("index.html", HTML, include_str!("index.html")),
    ("style.css", CSS, include_str!("style.css")),
    ("icon.svg", IMAGE, include_str!("icon.svg")),
    ("main.js", SCRIPT, include_str!("main.js")),
    ("admin.js", SCRIPT, include_str!("admin.js")),
    ("dom.js", SCRIPT, include_str!("dom.js")),
    ("words.js", SCRIPT, include_str!("words.js")),
    ("watch.js", SCRIPT, include_str!("watch.js")),
    ("actions.js", SCRIPT, include_str!("actions.js")),
    ("overview.js", SCRIPT, include_str!("overview.js")),
    ("provider.js", SCRIPT, include_str!("provider.js")),
    ("routes.js", SCRIPT, include_str!("routes.js")),
    ("events.js", SCRIPT, include_str!("events.js")),
    ("message.js", SCRIPT, include_str!("message.js")),
    ("explain.js", SCRIPT, include_str!("explain.js")),
    ("dead-letters.js", SCRIPT, include_str!("dead-letters.js")),
    ("audit.js", SCRIPT, include_str!("audit.js")),
    ("config.js", SCRIPT, include_str!("config.js")),
];

struct Asset {
    name: &'static str,
    kind: HeaderValue,
    content: &'static str,
    etag: HeaderValue,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |(name, kind, content): &(&'static str, &'static str, &'static str)| Asset {
        name,
        kind: HeaderValue::from_static(kind),
        content,
        etag: etag(content),
    };
    FILES.iter().map(asset).collect()
});

/// `GET /`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    serve(&ASSETS[0], &headers)
}

/// `GET /console/{file}`.
pub(super) async fn asset(Segment(file): Segment, headers: HeaderMap) -> Result<Response, Problem> {
    ASSETS
        .iter()
        .find(|asset| asset.name == file)
        .map(|asset| serve(asset, &headers))
        .ok_or_else(|| Problem::not_found("the console has no such file"))
}

fn serve(asset: &Asset, headers: &HeaderMap) -> Response {
    let common = [
        (ETAG, asset.etag.clone()),
        (CACHE_CONTROL, CACHING),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if known(headers, &asset.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, asset.kind.clone())], asset.content).into_response()
}

/// Whether the browser has this very content (RFC 9110, section 13.1.2).
fn known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let listed = |value: &HeaderValue| {
        let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == etag.as_bytes() || tag == b"*")
    };
    headers.get_all(IF_NONE_MATCH).iter().any(listed)
}

fn etag(content: &str) -> HeaderValue {
    let hash = digest::digest(&digest::SHA256, content.as_bytes());
    let digits: String = hash.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("\"{digits}\""))
        .expect("quotes and hexadecimal digits are a header value")
}

#[cfg(test)]
mod tests;
