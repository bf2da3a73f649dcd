//! Pages: `?limit=&cursor=` in, `items` and `next` out.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// What every list takes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Items on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, example = 100)]
    pub(super) limit: Option<String>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    from: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, from: 0 }
    }
}

impl Page {
    /// From the query parameters.
    ///
    /// # Errors
    /// 422: a limit beyond 1 to 1,000, or a cursor that is none of ours.
    pub fn parse(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = parse_limit(limit)?;
        let from = match cursor {
            None => 0,
            Some(text) => position(text).ok_or_else(bad_cursor)?,
        };
        Ok(Self { limit, from })
    }

    /// The one item at this place.
    pub(super) fn only(at: usize) -> Self {
        Self { limit: 1, from: at }
    }

    /// How many at most.
    pub fn limit(self) -> usize {
        self.limit
    }

    /// The part of a list of so many that is on this page, and the cursor of the
    /// page after it.
    pub fn of_many(self, many: usize) -> (Range<usize>, Option<String>) {
        let from = self.from.min(many);
        let to = (from + self.limit).min(many);
        (from..to, (to < many).then(|| cursor(to)))
    }

    /// The page of these items, as it is answered.
    pub fn of(self, mut items: Vec<Value>) -> Value {
        let (range, next) = self.of_many(items.len());
        items.truncate(range.end);
        items.drain(..range.start);
        json!({"items": items, "next": next})
    }
}

/// How many items a page may have.
///
/// # Errors
/// 422: beyond 1 to 1,000.
pub(super) fn parse_limit(limit: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = limit else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| Problem::parameter("limit", "must be a number from 1 to 1000"))
}

/// 422 for a cursor that is none of ours.
pub fn bad_cursor() -> Problem {
    Problem::parameter("cursor", "must be what `next` of the page before says")
}

/// A cursor of so many bytes: what a list that is paged by key goes on behind.
pub(super) fn key_cursor(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// What [`key_cursor`] made.
///
/// # Errors
/// 422: it is none of ours.
pub(super) fn parse_key_cursor<const N: usize>(cursor: &str) -> Result<[u8; N], Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad_cursor)
}

fn cursor(position: usize) -> String {
    // Lists that are paged by position are far shorter.
    URL_SAFE_NO_PAD.encode((position as u32).to_be_bytes())
}

fn position(cursor: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    usize::try_from(u32::from_be_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all: Vec<Value> = (0..250).map(Value::from).collect();
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = Page::parse(None, cursor.as_deref()).unwrap().of(all.clone());
            seen.extend(page["items"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_bad_limit_or_cursor_is_refused() {
        for (limit, cursor) in [
            (Some("0"), None),
            (Some("1001"), None),
            (Some("-1"), None),
            (Some("ten"), None),
            (None, Some("")),
            (None, Some("!!")),
            (None, Some("AAAA")),
        ] {
            assert!(Page::parse(limit, cursor).is_err(), "{limit:?} {cursor:?}");
        }
        assert!(Page::parse(Some("1000"), None).is_ok());
    }
}
