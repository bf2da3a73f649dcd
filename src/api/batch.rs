//! `POST /v1/messages/batch`: a message a line in, an answer a line out, as they
//! come.
//!
//! Reading, committing and answering go on at once: up to [`IN_FLIGHT`] lines wait
//! for the disk together (one commit then takes them all), answers keep the order
//! of the lines, and no more is read while that many wait or while the client does
//! not read its answers. A full queue or a rate slows the reading and fails no
//! line; what is wrong with one line is that line's answer.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::auth::Caller;
use super::layers::Permit;
use super::problem::{Code, Problem, ProblemShape};
use super::read::{self, Media, Traceparent};
use super::submit::Submitted;
use super::view::{Accepted, message_uuid};
use crate::dispatch::Limits;
use crate::intake::Fault;
use crate::model::Trace;

/// Lines of one batch that may wait for the disk at once.
const IN_FLIGHT: usize = 64;

/// A refused line is offered again no sooner and no later than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The answer to one line.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer<'a> {
    /// The line's number, from 1; blank lines count.
    line: u64,
    /// The message's id, when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = super::view::id, required = false)]
    id: Option<uuid::Uuid>,
    /// True when this is the answer to an earlier message with the same idempotency key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
    /// The deliveries, unresolved recipients and warnings of an accepted message that has some of the latter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Accepted<'_>>, nullable = false)]
    accepted: Option<Accepted<'a>>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemShape>, nullable = false)]
    problem: Option<&'a Problem>,
}

/// Take many messages.
///
/// A message a line (NDJSON) in, an answer a line out, in the order of the lines
/// and as they come. Each line is as the body of `POST /v1/messages`. Rates and
/// full queues slow the reading; a faulty line gets its problem and the rest goes on.
/// Read the answers while you write: the server stops reading when you do not.
#[utoipa::path(
    post,
    path = "/v1/messages/batch",
    operation_id = "submitMessages",
    tag = "messages",
    params(Traceparent),
    request_body(content = ref("#/components/schemas/Message"), content_type = "application/x-ndjson", description = "A message a line. No total size; each line has the limit of a body. Closed after 30 s without a byte."),
    responses((status = 200, description = "An answer a line.", body = BatchAnswer<'_>, content_type = "application/x-ndjson"))
)]
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = shared.state.authenticator.caller(&parts.headers)?;
    check(&parts.headers)?;
    if shared.state.closed.is_cancelled() {
        return Err(Problem::shutting_down());
    }
    // The request lasts as long as its answer does.
    let permit = parts.extensions.get::<Permit>().cloned();
    let trace = read::trace(&parts.headers);
    let lines = Lines::new(body, shared.state.limits);
    let answers = stream::unfold(lines, |mut lines| async {
        let line = lines.next().await?;
        Some((line, lines))
    })
    .map(move |line| answer(Arc::clone(&shared), Arc::clone(&caller), trace, line))
    .buffered(IN_FLIGHT)
    .inspect(move |_| {
        let _ = &permit;
    });
    let mut response = Response::new(Body::from_stream(answers));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    read::media(headers, Media::Lines)?;
    if headers.contains_key(read::IDEMPOTENCY_KEY) {
        let detail = "header Idempotency-Key: a batch has many messages; \
                      give each line its own idempotency_key";
        let pointer = "/idempotency_key".to_owned();
        let fault = Fault { pointer, detail: detail.to_owned(), code: "conflict" };
        return Err(Problem::invalid(vec![fault]));
    }
    Ok(())
}

/// One line's answer; an error ends the stream.
async fn answer(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    trace: Option<Trace>,
    line: io::Result<Line>,
) -> io::Result<Bytes> {
    let Line { number, text } = line?;
    let result = match text {
        Err(TooLong) => Err(read::too_large(&shared.state.limits)),
        Ok(text) => patient(&shared, &caller, trace, &text).await,
    };
    shared.count(&caller, result.as_ref());
    let answer = match &result {
        Ok(submitted) => accepted(number, submitted),
        Err(problem) => BatchAnswer {
            line: number,
            id: None,
            replayed: false,
            accepted: None,
            problem: Some(problem),
        },
    };
    // Our own shapes into memory: serialising them does not fail.
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    Ok(text.into())
}

fn accepted(line: u64, submitted: &Submitted) -> BatchAnswer<'_> {
    let message = submitted.message();
    let remarks = !message.warnings.is_empty() || !message.unresolved.is_empty();
    BatchAnswer {
        line,
        id: Some(message_uuid(message.id)),
        replayed: submitted.replayed(),
        accepted: remarks.then(|| Accepted::of(message)),
        problem: None,
    }
}

/// Offers a line until it is taken or refused for good.
async fn patient(
    shared: &Shared,
    caller: &Arc<Caller>,
    trace: Option<Trace>,
    text: &[u8],
) -> Result<Submitted, Problem> {
    loop {
        let offer = AssertUnwindSafe(shared.offer(caller, None, trace, text)).catch_unwind().await;
        let problem = match offer {
            Ok(Ok(submitted)) => return Ok(submitted),
            Ok(Err(problem)) if passes(problem.code()) => problem,
            Ok(Err(problem)) => return Err(problem),
            Err(_) => return Err(Problem::internal()),
        };
        let pause = problem.wait().unwrap_or(LONGEST_PAUSE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The next offer is told that the server goes down.
            () = shared.state.closed.cancelled() => {}
        }
    }
}

/// Whether waiting mends it.
fn passes(code: Code) -> bool {
    matches!(code, Code::RateLimited | Code::ClientQueueFull | Code::QueueFull | Code::Overloaded)
}

/// A line of the body, without its end.
#[derive(Debug)]
struct Line {
    number: u64,
    text: Result<Bytes, TooLong>,
}

#[derive(Debug)]
struct TooLong;

/// Cuts a body into lines as it comes, holding no more than one line and a frame.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// So much of the buffer holds no line's end.
    scanned: usize,
    number: u64,
    /// The rest of a line that is too long is on its way.
    skipping: bool,
    ended: bool,
    most: usize,
    idle: Duration,
}

impl Lines {
    fn new(body: Body, limits: Limits) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            scanned: 0,
            number: 0,
            skipping: false,
            ended: false,
            most: usize::try_from(limits.max_body).unwrap_or(usize::MAX),
            idle: limits.body_timeout,
        }
    }

    /// The next line that is not blank.
    async fn next(&mut self) -> Option<io::Result<Line>> {
        loop {
            if let Some(text) = self.cut() {
                self.number += 1;
                if let Some(line) = self.line(text) {
                    return Some(Ok(line));
                }
            } else if self.ended {
                return None;
            } else if let Err(error) = self.read().await {
                self.ended = true;
                self.buffer.clear();
                (self.scanned, self.skipping) = (0, false);
                return Some(Err(error));
            }
        }
    }

    /// A line that is there in full; at the end of the body, what is left.
    fn cut(&mut self) -> Option<Bytes> {
        let found = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let text = match found {
            Some(at) => {
                let mut text = self.buffer.split_to(self.scanned + at + 1);
                text.truncate(text.len() - 1);
                text
            }
            None if self.ended && (self.skipping || !self.buffer.is_empty()) => self.buffer.split(),
            None => {
                self.scanned = self.buffer.len();
                // One more byte than fits: a CR may be the last.
                if self.scanned > self.most.saturating_add(1) || self.skipping {
                    self.skipping = true;
                    self.buffer.clear();
                    self.scanned = 0;
                }
                return None;
            }
        };
        self.scanned = 0;
        Some(text.freeze())
    }

    fn line(&mut self, mut text: Bytes) -> Option<Line> {
        let number = self.number;
        if text.last() == Some(&b'\r') {
            text.truncate(text.len() - 1);
        }
        if std::mem::take(&mut self.skipping) || text.len() > self.most {
            return Some(Line { number, text: Err(TooLong) });
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        (!blank).then_some(Line { number, text: Ok(text) })
    }

    async fn read(&mut self) -> io::Result<()> {
        match tokio::time::timeout(self.idle, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
                Ok(())
            }
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(None) => {
                self.ended = true;
                Ok(())
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no byte in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(chunks: &[&'static str], most: u64) -> Vec<(u64, Option<String>)> {
        let chunks: Vec<io::Result<Bytes>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
        let body = Body::from_stream(stream::iter(chunks));
        let mut lines = Lines::new(body, Limits { max_body: most, ..Limits::default() });
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            let Line { number, text } = line.unwrap();
            let text = text.ok().map(|text| String::from_utf8(text.to_vec()).unwrap());
            found.push((number, text));
        }
        found
    }

    #[tokio::test]
    async fn lines_are_found_however_the_body_is_cut() {
        let expected = vec![(1, Some("ab".into())), (3, Some("cd".into())), (5, Some("e".into()))];
        for chunks in [
            &["ab\n\ncd\n \r\ne"][..],
            &["a", "b", "\n", "\nc", "d\r\n \r", "\ne"],
            &["ab\n\ncd\r", "\n\n", "e\n"],
        ] {
            assert_eq!(lines(chunks, 100).await, expected, "{chunks:?}");
        }
        assert_eq!(lines(&[], 100).await, vec![]);
        assert_eq!(lines(&["\n", "\n"], 100).await, vec![]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_and_the_rest_goes_on() {
        let expected = vec![(1, Some("1234".into())), (2, None), (3, Some("ok".into())), (4, None)];
        for chunks in [
            &["1234\r\n12345\nok\n1234567890"][..],
            &["1234\n123", "45", "678", "90\nok\n12345", "6"],
            &["1234\n", "12345", "6789\nok", "\n12", "34567890", "\n"],
        ] {
            assert_eq!(lines(chunks, 4).await, expected, "{chunks:?}");
        }
    }
}
