//! `POST /v1/receipts`: a device says that it has a delivery. No key is needed:
//! the secret that came with the push is proof enough, and it is checked before
//! anything is looked up. A wrong secret and an unknown delivery are the same 404.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use utoipa::ToSchema;

use super::Shared;
use super::problem::Problem;
use super::read::{self, Media};
use crate::dispatch::{Dispatcher, Limits, Received};
use crate::feedback::Receipts;
use crate::intake::Fault;
use crate::intake::json::{Node, parse};
use crate::model::DeliveryId;

/// A device's word.
#[derive(Debug, ToSchema)]
#[schema(as = Receipt)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `receive` reads")]
pub(super) struct ReceiptRequest {
    /// The delivery's id: what stands before the point in the payload's `pushyard`.
    delivery: String,
    /// What stands behind it.
    secret: String,
}

/// Note that a device has a delivery.
#[utoipa::path(
    post,
    path = "/v1/receipts",
    operation_id = "receipt",
    tag = "messages",
    security(()),
    request_body(content = ReceiptRequest, description = "Both parts of the payload's `pushyard`."),
    responses((status = 204, description = "The delivery is `delivered`."))
)]
pub(super) async fn receipt(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let state = &shared.state;
    receive(&state.receipts, &state.dispatcher, &state.limits, &headers, body).await
}

/// What every listener does that devices can reach.
///
/// # Errors
/// 404 for all that is no receipt of a delivery that is held; 400, 413, 415 and
/// 422 for a body that cannot be one.
pub async fn receive(
    receipts: &Receipts,
    dispatcher: &Dispatcher,
    limits: &Limits,
    headers: &HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    read::media(headers, Media::Json)?;
    let bytes = read::body(headers, body, limits).await?;
    let node = parse(&bytes, limits.max_json_depth)?;
    let (delivery, secret) = fields(&node)?;
    let unknown = || Problem::not_found("no delivery that is held has this id and secret");
    let delivery: DeliveryId = delivery.parse().map_err(|()| unknown())?;
    if !receipts.knows(delivery, secret) {
        return Err(unknown());
    }
    match dispatcher.receipt(delivery).await {
        Received::Noted => Ok(StatusCode::NO_CONTENT),
        Received::Unknown => Err(unknown()),
    }
}

fn fields<'n>(node: &'n Node<'_>) -> Result<(&'n str, &'n str), Problem> {
    let mut faults = Vec::new();
    let mut text = |key: &str| {
        let text = node.get(key).and_then(Node::text);
        if text.is_none() {
            let (detail, code) = ("is required, and is a string".to_owned(), "required");
            faults.push(Fault { pointer: format!("/{key}"), detail, code });
        }
        text.unwrap_or_default()
    };
    let fields = (text("delivery"), text("secret"));
    if faults.is_empty() { Ok(fields) } else { Err(Problem::invalid(faults)) }
}
