//! The small JSON bodies of operators' calls: one object, every key known, all
//! faults told at once with pointers.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;

use pushyard_providers::pointer_token;

use super::AdminState;
use crate::api::{Media, Problem, body, media};
use crate::clock::Utc;
use crate::intake::json::{Node, parse};
use crate::intake::{Fault, time};

/// The body, not yet understood. An empty one is an object without keys.
pub(super) async fn bytes(
    state: &AdminState,
    headers: &HeaderMap,
    of: Body,
) -> Result<Bytes, Problem> {
    media(headers, Media::Json)?;
    let bytes = body(headers, of, &state.limits).await?;
    Ok(if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes })
}

/// What is read of a body.
pub(super) struct Form<'a> {
    node: Node<'a>,
    faults: Vec<Fault>,
}

impl<'a> Form<'a> {
    /// An object with these keys at most.
    pub(super) fn new(bytes: &'a [u8], state: &AdminState, keys: &[&str]) -> Result<Self, Problem> {
        let node = parse(bytes, state.limits.max_json_depth)?;
        let mut form = Self { node, faults: Vec::new() };
        match &form.node {
            Node::Object(members) => {
                let unknown: Vec<String> = members
                    .iter()
                    .map(|(key, _)| key.to_string())
                    .filter(|key| !keys.contains(&&**key))
                    .collect();
                for key in unknown {
                    let detail = format!("unknown field; known are {}", keys.join(", "));
                    form.fault(&format!("/{}", pointer_token(&key)), detail, "unknown_field");
                }
            }
            other => {
                let detail = format!("must be an object, not {}", other.shape());
                form.fault("", detail, "invalid_type");
            }
        }
        Ok(form)
    }

    /// Something is wrong there.
    pub(super) fn fault(&mut self, pointer: &str, detail: impl Into<String>, code: &'static str) {
        self.faults.push(Fault { pointer: pointer.to_owned(), detail: detail.into(), code });
    }

    /// What stands at a key; `null` is nothing.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.node.get(key).filter(|node| !matches!(node, Node::Null))
    }

    /// A duration above zero, as a text with a unit.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.text(key)?;
        let duration = time::duration(&text).filter(|duration| !duration.is_zero());
        if duration.is_none() {
            let detail = "must be a duration with a unit, as in \"30m\" or \"7d\"";
            self.fault(&format!("/{key}"), detail, "invalid_value");
        }
        duration
    }

    /// A text of at most 1,000 characters.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let text = match self.get(key)? {
            Node::Text(text) if text.chars().count() <= 1000 => Some(text.to_string()),
            _ => None,
        };
        if text.is_none() {
            self.fault(
                &format!("/{key}"),
                "must be a text of at most 1000 characters",
                "invalid_type",
            );
        }
        text
    }

    /// A moment.
    pub(super) fn moment(&mut self, key: &'static str) -> Option<Utc> {
        let text = self.text(key)?;
        let moment = time::rfc3339(&text);
        if moment.is_none() {
            let detail = "must be a time, as in \"2026-12-01T08:00:00Z\"";
            self.fault(&format!("/{key}"), detail, "invalid_value");
        }
        moment
    }

    /// A whole number in a range.
    pub(super) fn whole(&mut self, key: &'static str, least: usize, most: usize) -> Option<usize> {
        let number = match self.get(key)? {
            Node::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let detail = format!("must be a whole number from {least} to {most}");
            self.fault(&format!("/{key}"), detail, "invalid_value");
        }
        number
    }

    /// # Errors
    /// 422 with all that is wrong.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}
