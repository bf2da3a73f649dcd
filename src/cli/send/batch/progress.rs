//! The bar on standard error; on anything but a terminal it is not there.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second: what an eye can follow.
const REDRAWS: u8 = 10;
/// Without news the clock goes on.
const TICK: Duration = Duration::from_millis(250);

/// How far a batch is.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of so many bytes; `None` where nobody knows.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
        let bar = ProgressBar::with_draw_target(bytes, target);
        let template = match bytes {
            Some(_) => "{bar:30} {percent:>3} %  {msg}  {elapsed_precise}",
            None => "{spinner} {bytes} read  {msg}  {elapsed_precise}",
        };
        // The templates are ours and sound; a bar in another style would do as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// So many bytes more are on their way.
    pub(super) fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The router has answered so many so far.
    pub(super) fn answered(&self, accepted: u64, refused: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{accepted} accepted, {refused} refused"));
        }
    }

    /// Writes something without the bar in between.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
