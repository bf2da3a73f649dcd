//! The control port: plain HTTP/1.1, for programs in any language.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post, put};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::problem::{FieldFault, Problem};
use super::{Control, UnknownVendor, wish};

/// Six million delivery ids in one call; more can come in several.
const MAX_BODY: usize = 256 * 1024 * 1024;
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

impl From<UnknownVendor> for Problem {
    fn from(unknown: UnknownVendor) -> Self {
        Self::NotFound(unknown.to_string())
    }
}

/// Serves the control port until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) {
    let router = router(control);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => {
                // A failure here is of one connection, or of too many of them.
                let Ok((stream, _)) = accepted else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
}

fn router(control: Control) -> Router {
    Router::new()
        .route("/vendors", get(vendors))
        .route("/vendors/{name}", put(set_vendor).get(vendor))
        .route("/arrivals", get(arrivals))
        .route("/expect", post(expect))
        .route("/summary", get(summary))
        .route("/requests", get(requests))
        .route("/reset", post(reset))
        .fallback(async || Problem::NotFound("no such path".to_owned()))
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(control)
}

async fn vendors(State(control): State<Control>) -> Json<Value> {
    Json(json!({"items": control.vendors()}))
}

async fn vendor(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(json!(control.vendor(&name)?)))
}

async fn set_vendor(
    State(control): State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    // The name first: a wish for nobody is not worth reading.
    let _known = control.named(&name)?;
    control.set(&name, wish::read(&body)?)?;
    let set: Vec<_> =
        control.vendors().into_iter().filter(|vendor| name == "*" || vendor.name == name).collect();
    Ok(Json(json!({"items": set})))
}

type Parameters = Query<HashMap<String, String>>;

async fn arrivals(
    State(control): State<Control>,
    Query(parameters): Parameters,
) -> Result<Json<Value>, Problem> {
    let from = number(&parameters, "cursor")?.unwrap_or(0);
    let limit = limit(&parameters)?;
    Ok(Json(json!(control.arrivals(from, limit))))
}

async fn expect(State(control): State<Control>, body: Bytes) -> Result<StatusCode, Problem> {
    let mut deliveries = Vec::new();
    for (at, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let delivery: String = serde_json::from_slice(line).map_err(|_| {
            let detail = format!("line {}: not a JSON string", at + 1);
            Problem::Invalid(vec![FieldFault::new(&at.to_string(), detail)])
        })?;
        deliveries.push(delivery);
    }
    control.expect(deliveries.iter().map(String::as_str));
    Ok(StatusCode::NO_CONTENT)
}

async fn summary(State(control): State<Control>) -> Json<Value> {
    Json(json!(control.summary()))
}

async fn requests(
    State(control): State<Control>,
    Query(parameters): Parameters,
) -> Result<Json<Value>, Problem> {
    let vendor = parameters.get("vendor").map(String::as_str);
    let items = control.requests(vendor, limit(&parameters)?)?;
    Ok(Json(json!({"items": items})))
}

async fn reset(State(control): State<Control>) -> StatusCode {
    control.reset();
    StatusCode::NO_CONTENT
}

fn limit(parameters: &HashMap<String, String>) -> Result<usize, Problem> {
    match number(parameters, "limit")? {
        None => Ok(DEFAULT_PAGE),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(_) => Err(invalid("limit", "limit is not from 1 to 1000")),
    }
}

fn number(parameters: &HashMap<String, String>, name: &str) -> Result<Option<usize>, Problem> {
    let Some(text) = parameters.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = text.parse();
    parsed.map(Some).map_err(|_| invalid(name, &format!("{name} is {text:?}, not a position")))
}

fn invalid(name: &str, detail: &str) -> Problem {
    Problem::Invalid(vec![FieldFault::new(name, detail)])
}
