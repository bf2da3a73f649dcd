//! The half of a batch that reads the file.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::PIECE;
use super::progress::Progress;
use crate::cli::failure::Failure;

/// The router closes a batch after 30 s without a byte; a writer may think longer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Between two lines a space changes nothing: JSON begins after any (RFC 8259, section 2).
const NOTHING: &[u8] = b" ";

/// What is written into the request's body; an error there cuts the request off.
pub(super) type Piece = Result<Frame<Bytes>, Cut>;

/// The body ends before its end.
#[derive(Debug)]
pub(super) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the file cannot be read on")
    }
}

impl std::error::Error for Cut {}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fed {
    /// Lines with something in them.
    pub(super) messages: u64,
    /// Whether the input's end was reached.
    pub(super) all: bool,
    /// Whether the line that is being read has something in it.
    in_message: bool,
}

/// A file of messages, or standard input.
pub(super) struct Input {
    file: File,
    name: String,
    bytes: Option<u64>,
}

impl Input {
    /// Opens it; `-` is standard input.
    pub(super) async fn open(file: &Path) -> Result<Self, Failure> {
        let named = file != Path::new("-");
        let name = if named { file.display().to_string() } else { "standard input".to_owned() };
        let unreadable = |error| Failure::told(format!("cannot read {name}: {error}"));
        let opened = if named { File::open(file).await } else { standard_input() };
        let file = opened.map_err(unreadable)?;
        let metadata = file.metadata().await.map_err(unreadable)?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { file, name, bytes })
    }

    /// How many there are; not known of a stream.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Passes everything on, or what the other end still takes. `fed` is told as
    /// it goes, so that it is right whenever this is cancelled.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub(super) async fn carry(
        mut self,
        pieces: mpsc::Sender<Piece>,
        fed: &mut Fed,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            let read = tokio::time::timeout(KEEP_ALIVE, self.file.read_buf(&mut buffer)).await;
            let piece = match read {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => buffer.split().freeze(),
                // In the middle of a message a space could be in the middle of a word.
                Err(_) if fed.in_message => continue,
                Err(_) => Bytes::from_static(NOTHING),
                Ok(Err(error)) => {
                    let _ = pieces.send(Err(Cut)).await;
                    return Err(Failure::told(format!("cannot read {}: {error}", self.name)));
                }
            };
            let Ok(room) = pieces.reserve().await else {
                // The other half knows why nothing more is taken, and ends by itself.
                return std::future::pending().await;
            };
            // Not counted before there was room: what waits here has not left.
            fed.count(&piece);
            progress.read(piece.len() as u64);
            room.send(Ok(Frame::data(piece)));
        }
        fed.end();
        Ok(())
    }
}

/// As a file: what it is shall be seen, and read no further than it is passed on.
fn standard_input() -> std::io::Result<File> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(File::from_std(std::fs::File::from(input)))
}

impl Fed {
    fn count(&mut self, piece: &[u8]) {
        for byte in piece {
            match byte {
                b'\n' => {
                    self.messages += u64::from(self.in_message);
                    self.in_message = false;
                }
                b' ' | b'\t' | b'\r' => {}
                _ => self.in_message = true,
            }
        }
    }

    /// The last line needs no line end.
    fn end(&mut self) {
        self.messages += u64::from(self.in_message);
        self.in_message = false;
        self.all = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_over_the_edges_of_pieces_and_blank_lines_are_none() {
        let mut fed = Fed::default();
        for piece in ["{\"a\"", ":1}\n\n  \r\n ", " {", "}\n{}"] {
            fed.count(piece.as_bytes());
        }
        assert_eq!((fed.messages, fed.in_message, fed.all), (2, true, false));
        fed.end();
        assert_eq!((fed.messages, fed.in_message, fed.all), (3, false, true));
    }
}
