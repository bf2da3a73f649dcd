//! What people see: lines, tables, colours.
//!
//! Colours are written always and taken out again where nobody sees them: on
//! anything but a terminal, and where `NO_COLOR` asks for it. Tables have no
//! lines, so that `grep` and `awk` can read them; on a terminal they are wrapped
//! to its width, elsewhere never.
//!
//! Much of what is shown was written by others (a vendor's error text, a
//! backend's references): [`plain`] keeps it from steering the terminal.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};

use super::failure::Failure;

/// Columns of a terminal below which text is no longer broken into lines.
const READABLE: u16 = 20;

/// How whoever started the program wants to be talked to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ui {
    /// As a machine.
    pub(super) json: bool,
    /// Standard output is a terminal: it can be redrawn.
    pub(super) terminal: bool,
    /// The terminal's columns; `None` where there is none.
    width: Option<u16>,
}

impl Ui {
    /// Looks at what standard output is.
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, width: Table::new().width().filter(|_| terminal) }
    }

    /// A table with these column titles.
    pub(super) fn table(&self, titles: &[&str]) -> Table {
        let mut table = self.sheet();
        table
            .set_header(titles.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        table
    }

    /// A table without titles: a name and what it is, a line.
    pub(super) fn sheet(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.force_no_tty().enforce_styling();
        if let Some(width) = self.width {
            table.set_width(width);
        }
        table
    }
}

/// A table as text, without blanks at the ends of its lines.
pub(super) fn shown(mut table: Table) -> String {
    table.style_text_only();
    let last = table.column_count().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // Only the last one holds sentences; half an id would be of no use.
        column.set_constraint(if at == last {
            ColumnConstraint::LowerBoundary(Width::Fixed(READABLE))
        } else {
            ColumnConstraint::ContentWidth
        });
    }
    table.trim_fmt()
}

/// A line of the result.
///
/// # Errors
/// [`Failure::ReaderGone`], or that standard output takes nothing.
pub(super) fn say(line: impl Display) -> Result<(), Failure> {
    written(writeln!(anstream::stdout().lock(), "{line}"))
}

/// JSON of the result as it came, and a line end.
///
/// # Errors
/// As [`say`].
pub(super) fn say_json(json: &[u8]) -> Result<(), Failure> {
    say_bytes(json.trim_ascii_end())?;
    say_bytes(b"\n")
}

/// Part of the result as it is.
///
/// # Errors
/// As [`say`].
pub(super) fn say_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::told(format!("cannot write to standard output: {error}")),
    })
}

/// A line on the way, on standard error. When that is closed there is nobody to tell.
pub(super) fn aside(line: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Why it did not work, on standard error.
pub(super) fn error(reason: &str) {
    let red = AnsiColor::Red.on_default().bold();
    aside(format_args!("{red}error:{red:#} {reason}"));
}

/// What should be known although it worked, on standard error.
pub(super) fn warning(what: &str) {
    let yellow = AnsiColor::Yellow.on_default().bold();
    aside(format_args!("{yellow}warning:{yellow:#} {what}"));
}

/// Text in bold.
pub(super) fn bold(text: impl Display) -> String {
    let bold = Style::new().bold();
    format!("{bold}{text}{bold:#}")
}

/// A cell with text that others wrote; a dash where there is none.
pub(super) fn cell(text: &str) -> Cell {
    if text.is_empty() { Cell::new("-").fg(Color::DarkGrey) } else { Cell::new(plain(text)) }
}

/// A cell with a line for each of these, written by others.
pub(super) fn lines(lines: &[String]) -> Cell {
    if lines.is_empty() {
        return cell("");
    }
    Cell::new(lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n"))
}

/// A state in its colour: of a provider, of a delivery or of a message.
pub(super) fn state(word: &str) -> Cell {
    let color = match word {
        "healthy" | "sent" | "delivered" => Color::Green,
        "degraded" | "probing" | "waiting" | "unknown" | "partial" => Color::Yellow,
        "ejected" | "failed" | "expired" => Color::Red,
        "drained" | "cancelled" => Color::Magenta,
        _ => return cell(word),
    };
    Cell::new(word).fg(color)
}

/// Text without what steers a terminal.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// How long, in its largest unit: what fits a column.
pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// For tests: a user without a terminal.
#[cfg(test)]
pub(super) fn without_terminal() -> Ui {
    Ui { json: false, terminal: false, width: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(plain("Zustellung läuft"), "Zustellung läuft");
    }

    #[test]
    fn durations_show_their_largest_unit() {
        let cases = [(0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (86_400, "1d")];
        for (seconds, shown) in cases {
            assert_eq!(rough(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn a_closed_reader_is_told_from_a_full_disk() {
        let gone = written(Err(io::ErrorKind::BrokenPipe.into()));
        assert!(matches!(gone, Err(Failure::ReaderGone)));
        let full = written(Err(io::ErrorKind::StorageFull.into()));
        assert!(matches!(full, Err(Failure::Told(_))));
    }
}
