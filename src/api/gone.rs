//! `GET /v1/addresses/gone`: what a backend deletes from its tables.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::messages::json;
use super::page::{PageQuery, key_cursor, parse_key_cursor, parse_limit};
use super::problem::Problem;
use super::read;
use super::submit::blocking;
use crate::clock::Utc;
use crate::intake::time;
use crate::model::Gone;

/// Entries that one call looks at: those of other clients are passed over.
const LOOKED_AT: usize = 10_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GoneQuery {
    /// Those found out at this time or later (RFC 3339).
    #[param(format = DateTime, example = "2026-11-24T00:00:00Z")]
    since: Option<String>,
}

/// An address that a vendor declared gone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GoneAddress<'a> {
    /// The address kind.
    kind: &'a str,
    /// The token, or what the kind has in its place: a topic, an endpoint.
    token: &'a str,
    /// Your name for the recipient.
    #[serde(rename = "ref")]
    #[schema(required = true)]
    reference: Option<&'a str>,
    /// The user, where it was a registered device's.
    #[schema(required = true)]
    user: Option<&'a str>,
    /// The provider that said so.
    provider: &'a str,
    /// When it said so.
    #[schema(format = DateTime)]
    at: String,
    /// Since when, if it said that.
    #[schema(format = DateTime, required = true)]
    vendor_at: Option<String>,
    /// Its own words.
    #[schema(inline)]
    proof: ProofView<'a>,
}

/// The vendor's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProofView<'a> {
    /// HTTP status.
    #[schema(required = true)]
    status: Option<u16>,
    /// Its code or reason.
    #[schema(required = true)]
    code: Option<&'a str>,
    /// The beginning of the body; a repeated address is struck out.
    #[schema(required = true)]
    body: Option<&'a str>,
}

/// A page of gone addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GonePage<'a> {
    /// Oldest first.
    #[schema(value_type = Vec<GoneAddress<'_>>)]
    items: Vec<GoneAddress<'a>>,
    /// The `cursor` of the next page; null: this is the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List addresses that vendors declared gone.
///
/// Oldest first. Delete them from your tables: no attempt is made at one until it
/// is registered again. A page may be short, and has a `next` all the same.
#[utoipa::path(
    get,
    path = "/v1/addresses/gone",
    operation_id = "listGoneAddresses",
    tag = "addresses",
    params(GoneQuery, PageQuery),
    responses((status = 200, description = "A page.", body = GonePage<'_>))
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let caller = shared.state.authenticator.caller(request.headers())?;
    let GoneQuery { since } = read::query(request.uri())?;
    let page: PageQuery = read::query(request.uri())?;
    let limit = parse_limit(page.limit.as_deref())?;
    let since = parse_since(since.as_deref())?;
    let from = match page.cursor.as_deref() {
        Some(cursor) => parse(cursor)?,
        // Before the first of that moment.
        None => since.map_or((Utc::default(), 0), |since| {
            (Utc::from_ms(since.ms().saturating_sub(1)), u128::MAX)
        }),
    };
    let store = Arc::clone(&shared.state.store);
    let (client, admin) = (Arc::clone(caller.name()), caller.is_admin());
    let (items, next) = blocking(move || {
        let (mut items, mut looked_at, mut last) = (Vec::new(), 0, None);
        let mut more = false;
        store.gone(from, &mut |gone| {
            if items.len() == limit || looked_at == LOOKED_AT {
                more = true;
                return false;
            }
            looked_at += 1;
            last = Some((gone.at, gone.key()));
            if admin || gone.client == client {
                items.push(gone);
            }
            true
        })?;
        Ok::<_, crate::store::StoreError>((items, last.filter(|_| more)))
    })
    .await??;
    let page = GonePage { items: items.iter().map(item).collect(), next: next.map(cursor) };
    Ok(json(StatusCode::OK, &page))
}

fn item(gone: &Gone) -> GoneAddress<'_> {
    let Gone { client: _, provider, address, reference, user, at, vendor_at, proof } = gone;
    let first = || address.values().next().map(|(_, value)| value);
    GoneAddress {
        kind: address.kind().name,
        token: address.get("token").or_else(first).unwrap_or_default(),
        reference: reference.as_deref(),
        user: user.as_deref(),
        provider,
        at: at.rfc3339(),
        vendor_at: vendor_at.map(Utc::rfc3339),
        proof: ProofView {
            status: proof.status,
            code: proof.code.as_deref(),
            body: proof.body.as_deref(),
        },
    }
}

/// The time of `?since=`.
pub(super) fn parse_since(text: Option<&str>) -> Result<Option<Utc>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let detail = "must be a time as RFC 3339 writes it, such as 2026-12-01T08:00:00Z";
    time::rfc3339(text).map(Some).ok_or_else(|| Problem::parameter("since", detail))
}

fn cursor((at, key): (Utc, u128)) -> String {
    key_cursor(&[&at.ms().to_be_bytes()[..], &key.to_be_bytes()[..]].concat())
}

fn parse(cursor: &str) -> Result<(Utc, u128), Problem> {
    let bytes: [u8; 24] = parse_key_cursor(cursor)?;
    let (at, key) = bytes.split_at(8);
    let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u128::from(*byte));
    // Eight bytes.
    Ok((Utc::from_ms(word(at) as u64), word(key)))
}
