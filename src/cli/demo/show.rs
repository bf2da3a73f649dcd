//! How a running demo looks: redrawn in place on a terminal, or a line a second.
//!
//! On a terminal events scroll away upwards, so that they can be read again
//! afterwards, and the table of providers with the progress bar stays below
//! them; the whole of it is one message of one progress bar and so is drawn in
//! one go. Nothing is wider than 79 columns: a line that wraps would be redrawn
//! wrongly by some terminals.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::watch::{Seen, Sight};
use crate::cli::load::say;

const WIDTH: usize = 79;

/// Ticks of the progress bar: the duration in permille.
const BAR: u64 = 1000;

/// A way to show a demo.
pub(super) enum Show {
    /// On a terminal.
    Live(Live),
    /// A line a second, and one for each event.
    Plain(Plain),
    /// Nothing until the end.
    Silent,
}

impl Show {
    /// What fits where the output goes to.
    pub(super) fn new(duration: Duration, plain: bool, json: bool) -> Self {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        match (json, plain || !terminal) {
            (true, _) => Self::Silent,
            (false, true) => Self::Plain(Plain { duration, next: Duration::ZERO }),
            (false, false) => Self::Live(Live::new(duration)),
        }
    }

    /// Something that happened.
    pub(super) fn event(&self, at: Duration, text: &str) {
        let line = format!("{:6.1} s  {text}", at.as_secs_f64());
        match self {
            Self::Live(live) => live.bar.println(cut(&line)),
            Self::Plain(_) => say(line),
            Self::Silent => {}
        }
    }

    /// How things are.
    pub(super) fn sight(&mut self, sight: &Sight) {
        match self {
            Self::Live(live) => live.draw(sight),
            Self::Plain(plain) => plain.line(sight),
            Self::Silent => {}
        }
    }
}

/// The redrawn screen; it is wiped when it is dropped.
pub(super) struct Live {
    bar: ProgressBar,
    duration: Duration,
    colour: bool,
}

impl Live {
    fn new(duration: Duration) -> Self {
        let bar = ProgressBar::with_draw_target(Some(BAR), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}\n{bar:60} {prefix}")
            .expect("the template is of known parts")
            .progress_chars("=> ");
        bar.set_style(style);
        // The convention of no-color.org: set and not empty.
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { bar, duration, colour }
    }

    fn draw(&self, sight: &Sight) {
        let share = sight.at.as_secs_f64() / self.duration.as_secs_f64().max(0.001);
        self.bar.set_position((share.min(1.0) * BAR as f64) as u64);
        let (at, all) = (sight.at.min(self.duration).as_secs(), self.duration.as_secs());
        self.bar.set_prefix(format!("{at} of {all} s"));
        self.bar.set_message(frame(sight, self.colour));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line a second.
pub(super) struct Plain {
    duration: Duration,
    next: Duration,
}

impl Plain {
    fn line(&mut self, sight: &Sight) {
        if sight.at >= self.next {
            self.next = Duration::from_secs(sight.at.as_secs() + 1);
            say(plain(sight, self.duration));
        }
    }
}

fn frame(sight: &Sight, colour: bool) -> String {
    let mut lines = vec![
        String::new(),
        format!(
            "{:<9} {:<9} {:<13} {:>7} {:>8} {:>8} {:>9} {:>9}",
            "provider", "state", "why", "sent/s", "p50 ms", "p99 ms", "in flight", "failovers"
        ),
    ];
    lines.extend(sight.providers.iter().map(|seen| row(seen, colour)));
    lines.push(String::new());
    lines.push(cut(&totals(sight)));
    lines.join("\n")
}

fn row(seen: &Seen, colour: bool) -> String {
    let provider = &seen.provider;
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    // The width first: escape sequences have none, but would be counted.
    let state = format!("{:<9.9}", provider.state);
    let style = if colour { style(&provider.state) } else { Style::new() };
    format!(
        "{:<9.9} {style}{state}{style:#} {:<13.13} {:>7.0} {:>8} {:>8} {:>9} {:>9}",
        provider.id,
        why(seen),
        seen.rate,
        ms(provider.latency_ms.p50),
        ms(provider.latency_ms.p99),
        provider.in_flight,
        seen.failovers,
    )
}

fn why(seen: &Seen) -> &str {
    match (&seen.provider.reason, &seen.provider.paused_until) {
        (Some(reason), _) => reason,
        (None, Some(_)) => "paused",
        (None, None) => "",
    }
}

fn style(state: &str) -> Style {
    let colour = match state {
        "healthy" => AnsiColor::Green,
        "degraded" | "probing" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    colour.on_default()
}

fn totals(sight: &Sight) -> String {
    format!(
        "accepted {}   taken by vendors {}   waiting {}   refused {}",
        sight.accepted, sight.taken, sight.unsettled, sight.refused
    )
}

fn plain(sight: &Sight, duration: Duration) -> String {
    let mut line =
        format!("{:6.1} s of {} s  {}", sight.at.as_secs_f64(), duration.as_secs(), totals(sight));
    for seen in &sight.providers {
        let why = match why(seen) {
            "" => String::new(),
            why => format!(" ({why})"),
        };
        line.push_str(&format!(
            "   {}: {}{why} {:.0}/s",
            seen.provider.id, seen.provider.state, seen.rate
        ));
    }
    line
}

fn cut(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::load::admin::{Latency, Provider};

    fn busy() -> Sight {
        let provider = Provider {
            id: "a-very-long-provider-id".to_owned(),
            state: "ejected".to_owned(),
            reason: Some("misconfigured".to_owned()),
            latency_ms: Latency { p50: Some(12.4), p99: Some(9999.0) },
            in_flight: 1000,
            ..Provider::default()
        };
        let seen = Seen { provider, accepted: 1, rate: 123_456.0, failovers: 1_234_567 };
        Sight {
            at: Duration::from_millis(12_345),
            providers: vec![seen.clone(), seen],
            accepted: u64::from(u32::MAX),
            taken: u64::from(u32::MAX),
            unsettled: u64::from(u32::MAX),
            refused: u64::from(u32::MAX),
        }
    }

    #[test]
    fn no_line_of_the_frame_is_wider_than_a_terminal() {
        for line in frame(&busy(), false).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = frame(&busy(), true);
        assert!(coloured.contains('\u{1b}'));
        let stripped = coloured.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert_eq!(stripped, frame(&busy(), false));
    }

    #[test]
    fn plain_line_tells_the_same() {
        let line = plain(&busy(), Duration::from_secs(60));
        assert!(
            line.contains("12.3 s of 60 s") && line.contains("ejected (misconfigured)"),
            "{line}"
        );
    }
}
