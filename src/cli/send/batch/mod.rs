//! `pushyard send --file`: a stream of messages, and an answer for each as it comes.
//!
//! Two halves run at once: one reads the file and feeds the request's body, the
//! other reads answers. The router slows the reading down where it must; so
//! neither half holds more than a few pieces of [`PIECE`] bytes, whatever the
//! file's size. Lines are passed on as they are: what is valid is the router's to
//! say.
//!
//! A line without an answer (the connection broke) may or may not have been
//! accepted, and is reported so: repeating it is safe with an idempotency key, and
//! only its writer knows whether it has one.

mod feed;
mod progress;

use std::path::Path;
use std::process::ExitCode;

use futures_util::stream;
use http_body_util::StreamBody;
use reqwest::{Body, Method, Response, header};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::cli::client::{Client, Problem};
use crate::cli::failure::Failure;
use crate::cli::ui::{self, Ui};
use feed::{Fed, Input};
use progress::Progress;

/// Bytes of the file that travel together.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the network; when they are this many, the file is not read on.
const PIECES_AHEAD: usize = 4;

/// Sends a file's messages (`-`: standard input) and tells what was refused.
pub(super) async fn run(client: &Client, file: &Path, ui: &Ui) -> Result<ExitCode, Failure> {
    let input = Input::open(file).await?;
    let progress = Progress::new(input.bytes());
    let ended = exchange(client, input, &progress, ui).await;
    progress.finish();
    let Exchange { tally, fed, broken } = ended?;
    // Lines that were read and got no answer; how many the router has seen is not known.
    let unanswered = fed.messages.saturating_sub(tally.accepted + tally.refused);
    if let Some(broken) = broken {
        broken.end(ui);
    }
    if unanswered > 0 || !fed.all {
        ui::warning(&unfinished(tally.last_line, unanswered));
    }
    if !ui.json {
        ui::say(format_args!("{} accepted, {} refused", tally.accepted, tally.refused))?;
    }
    let good = tally.refused == 0 && unanswered == 0 && fed.all;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn unfinished(last_line: u64, unanswered: u64) -> String {
    format!(
        "the batch ended early; the last answer is for line {last_line}. {unanswered} messages \
         after it were read and may or may not have been accepted, the rest was not sent. With \
         an idempotency_key in each line they can be sent again safely"
    )
}

/// How a batch went.
struct Exchange {
    tally: Tally,
    fed: Fed,
    /// Why it went no further.
    broken: Option<Failure>,
}

/// What the router answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: u64,
    refused: u64,
    /// Of the latest answer, counted from 1.
    last_line: u64,
}

async fn exchange(
    client: &Client,
    input: Input,
    progress: &Progress,
    ui: &Ui,
) -> Result<Exchange, Failure> {
    let (pieces, mut taken) = mpsc::channel(PIECES_AHEAD);
    let body = StreamBody::new(stream::poll_fn(move |context| taken.poll_recv(context)));
    let call = client
        .call(Method::POST, &["v1", "messages", "batch"], &[])
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(Body::wrap(body));

    let mut fed = Fed::default();
    let mut answers = Answers { tally: Tally::default(), line: Vec::new(), progress, ui };
    let mut broken = {
        let mut answered = std::pin::pin!(async {
            let response = client.open(call).await?;
            answers.read_all(client, response).await
        });
        tokio::select! {
            // The router may end first: it refused, or it is shutting down.
            answered = &mut answered => answered.err(),
            carried = input.carry(pieces, &mut fed, progress) => match carried {
                Ok(()) => answered.await.err(),
                // Without its end the body is not taken for whole.
                Err(unreadable) => Some(unreadable),
            },
        }
    };
    // Nobody reads on, or not one line was taken: nothing is in doubt.
    if let Some(ended) = broken.take_if(|ended| is_all_there_is_to_tell(ended)) {
        return Err(ended);
    }
    Ok(Exchange { tally: answers.tally, fed, broken })
}

fn is_all_there_is_to_tell(ended: &Failure) -> bool {
    match ended {
        Failure::ReaderGone
        | Failure::Refused(_)
        | Failure::Unreachable(_)
        | Failure::Usage(..) => true,
        Failure::Told(_) => false,
    }
}

/// Reads answer lines.
struct Answers<'a> {
    tally: Tally,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    progress: &'a Progress,
    ui: &'a Ui,
}

/// An answer line: an id or a problem.
#[derive(Deserialize)]
struct Answer {
    line: u64,
    problem: Option<Problem>,
}

impl Answers<'_> {
    async fn read_all(&mut self, client: &Client, mut response: Response) -> Result<(), Failure> {
        while let Some(piece) = response.chunk().await.map_err(|error| client.broken(&error))? {
            self.take(&piece)?;
        }
        let rest = std::mem::take(&mut self.line);
        self.answer(&rest)
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.answer(&line)?;
            }
        }
        self.progress.answered(self.tally.accepted, self.tally.refused);
        Ok(())
    }

    fn answer(&mut self, json: &[u8]) -> Result<(), Failure> {
        if json.trim_ascii().is_empty() {
            return Ok(());
        }
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|error| Failure::told(format!("this is not a router's answer: {error}")))?;
        self.tally.last_line = answer.line;
        match &answer.problem {
            None => self.tally.accepted += 1,
            Some(_) => self.tally.refused += 1,
        }
        if self.ui.json {
            return self.progress.aside(|| ui::say_json(json));
        }
        if let Some(problem) = answer.problem {
            self.progress.aside(|| ui::error(&format!("line {}: {problem}", answer.line)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
