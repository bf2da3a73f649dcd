//! The console's files as a browser gets them.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::get;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::{FILES, asset, page};

async fn fetch(path: &str, if_none_match: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get(path);
    if let Some(tag) = if_none_match {
        request = request.header("if-none-match", tag);
    }
    send(request).await
}

async fn send(request: Builder) -> (StatusCode, HeaderMap, String) {
    let router = Router::new().route("/", get(page)).route("/console/{file}", get(asset));
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn paths() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let path = |name: &str| match name {
        "index.html" => "/".to_owned(),
        _ => format!("/console/{name}"),
    };
    FILES.iter().map(move |(name, kind, content)| (path(name), *kind, *content))
}

#[tokio::test]
async fn every_file_has_its_type_the_policy_and_is_not_sniffed() {
    for (path, kind, content) in paths() {
        let (status, headers, body) = fetch(&path, None).await;
        assert_eq!((status, &*body), (StatusCode::OK, content), "{path}");
        assert_eq!(headers["content-type"], kind, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(
            headers["content-security-policy"],
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    for (path, ..) in paths() {
        let (_, headers, _) = fetch(&path, None).await;
        assert_eq!(headers["cache-control"], "no-cache", "{path}");
        let tag = headers["etag"].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let (status, headers, body) = fetch(&path, Some(&known)).await;
            assert_eq!((status, &*body), (StatusCode::NOT_MODIFIED, ""), "{path} {known}");
            assert_eq!(headers["etag"], tag);
        }
        let (status, _, _) = fetch(&path, Some("\"other\"")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn head_gives_the_headers_and_nothing_else() {
    for (path, kind, content) in paths() {
        let (status, headers, body) = send(Request::head(&*path)).await;
        assert_eq!((status, &*body), (StatusCode::OK, ""), "{path}");
        assert_eq!(headers["content-type"], kind, "{path}");
        assert_eq!(headers["content-length"], content.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_file_is_not_found() {
    for path in ["/console/mod.rs", "/console/..%2f..%2fmod.rs", "/console/INDEX.html"] {
        assert_eq!(fetch(path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn every_file_of_the_folder_is_served() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/console");
    let there: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".rs"))
        .collect();
    let served = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(there, served);
}

/// The policy would block the first three, silently for whoever wrote them; the
/// others write data as markup, or load from elsewhere.
#[test]
fn no_file_has_what_the_policy_forbids_or_writes_markup() {
    let forbidden = [
        " style=",
        " onclick=",
        "<style",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "https://",
        "setAttribute(\"style\"",
    ];
    for (name, _, content) in FILES {
        for word in forbidden {
            assert!(!content.contains(word), "{name} contains `{word}`");
        }
    }
    let (_, _, html) = FILES[0];
    let scripts = html.matches("<script").count();
    assert_eq!(scripts, html.matches("<script type=\"module\" src=\"/console/").count());
}
