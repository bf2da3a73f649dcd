//! Another process of this same program.
//!
//! Demo and bench run the router and the simulator as users run them: the
//! binary itself, by its command line, each with its own memory and processor
//! time to be measured, and to be killed as hard as a machine would. A child
//! says on one line of standard output where it is to be found; its last lines
//! on standard error are kept for the case that it dies. It dies with us.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Failure;

/// From start to the first line of output, at most. Opening a large store after
/// a kill takes seconds, and the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Lines of standard error that are kept, and how much of each.
const LAST_LINES: usize = 12;
const LINE_LENGTH: usize = 400;

/// A running child. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    pid: u32,
    // Held open: a process whose output nobody reads ends when it writes.
    output: Lines<BufReader<ChildStdout>>,
    last_words: Arc<Mutex<VecDeque<String>>>,
    tasks: JoinSet<()>,
}

impl Child {
    /// Starts this program with other arguments, and reads the first line that
    /// it prints.
    pub(crate) async fn start(
        name: &'static str,
        arguments: &[&OsStr],
    ) -> Result<(Self, String), Failure> {
        let program = std::env::current_exe()
            .map_err(|error| format!("cannot find this program's own file: {error}"))?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C is ours to hear, and we end it in our order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start the {name}: {error}"))?;
        let (Some(output), Some(errors), Some(pid)) =
            (process.stdout.take(), process.stderr.take(), process.id())
        else {
            return Err(format!("the {name} started without its pipes").into());
        };
        let last_words = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(errors, Arc::clone(&last_words)));
        let output = BufReader::new(output).lines();
        let mut child = Self { name, process, pid, output, last_words, tasks };
        match timeout(READY_WITHIN, child.output.next_line()).await {
            Ok(Ok(Some(line))) => Ok((child, line)),
            Ok(Ok(None) | Err(_)) => Err(child.obituary("ended before it was ready").await),
            Err(_) => Err(format!("the {name} was not ready within {READY_WITHIN:?}").into()),
        }
    }

    /// For figures under `/proc`.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails when the process has ended.
    pub(crate) async fn check(&mut self) -> Result<(), Failure> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(self.obituary("ended").await),
        }
    }

    /// SIGKILL, and waits until the process is gone and its ports are free.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        let killed = self.process.kill().await;
        killed.map_err(|error| format!("cannot kill the {}: {error}", self.name).into())
    }

    async fn obituary(&mut self, what: &str) -> Failure {
        // The pipe closes with the process; a grandchild could hold it open.
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(Duration::from_secs(1), rest).await;
        let status = match timeout(Duration::from_secs(1), self.process.wait()).await {
            Ok(Ok(status)) => format!(" ({status})"),
            Ok(Err(_)) | Err(_) => String::new(),
        };
        let mut text = format!("the {} {what}{status}", self.name);
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if !words.is_empty() {
            text.push_str("; its last words:");
        }
        for line in words.iter() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text.into()
    }
}

async fn listen(errors: impl AsyncRead + Unpin, last_words: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(errors).lines();
    while let Ok(Some(mut line)) = lines.next_line().await {
        if let Some((end, _)) = line.char_indices().nth(LINE_LENGTH) {
            line.truncate(end);
        }
        let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LAST_LINES {
            words.pop_front();
        }
        words.push_back(line);
    }
}
