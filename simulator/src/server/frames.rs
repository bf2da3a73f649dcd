//! HTTP/2 frames, followed over bytes that pass by in pieces.
//!
//! Only the nine bytes of each frame's header are looked at (RFC 9113, section
//! 4.1), so that following a connection costs next to nothing beside its
//! encryption.

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;

const HEAD: usize = 9;

impl Head {
    fn read(bytes: [u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    /// Whether the sender of this frame opens or answers its stream with its
    /// last word.
    pub(super) fn ends_stream(self) -> bool {
        match self.kind {
            DATA | HEADERS => self.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => false,
        }
    }

    fn is_settings(self) -> bool {
        self.kind == SETTINGS && self.flags & ACK == 0
    }
}

/// Where a flow of frames is.
#[derive(Clone)]
pub(super) struct Frames {
    /// Bytes that still belong to what was begun.
    left: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    /// A flow that begins with so many bytes that are no frame.
    pub(super) fn after(preface: usize) -> Self {
        Self { left: preface, head: [0; HEAD], have: 0 }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Follows bytes, and shows each header that they complete.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut show: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == HEAD {
                let head = Head::read(self.head);
                self.left = head.length;
                self.have = 0;
                show(head);
            }
        }
    }

    /// Where in these bytes the next SETTINGS frame (no acknowledgement) begins
    /// and how long its payload is.
    pub(super) fn settings_in(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        if self.have > 0 {
            // A header torn apart: the writer's buffer was full, and begins
            // again with its rest. Such a frame is let pass.
            return None;
        }
        let mut at = self.left;
        loop {
            let head: [u8; HEAD] = bytes.get(at..at + HEAD)?.try_into().ok()?;
            let head = Head::read(head);
            if head.is_settings() {
                return Some((at, head.length));
            }
            at += HEAD + head.length;
        }
    }
}

const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// Rewrites a whole SETTINGS frame so that it announces this stream limit: in
/// the place of the limit it has, or else of its window size. The library can
/// change the latter on a live connection and not the former, so a repetition
/// of the window size is what carries a new limit.
pub(super) fn announce(frame: &[u8], limit: u32) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let id = |entry: &[u8]| u16::from_be_bytes([entry[0], entry[1]]);
    let payload = frame.get_mut(HEAD..).unwrap_or_default();
    let wanted = [MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE]
        .into_iter()
        .find(|wanted| payload.chunks_exact(6).any(|entry| id(entry) == *wanted));
    for entry in payload.chunks_exact_mut(6) {
        if Some(id(entry)) == wanted {
            entry[..2].copy_from_slice(&MAX_CONCURRENT_STREAMS.to_be_bytes());
            entry[2..].copy_from_slice(&limit.to_be_bytes());
        }
    }
    frame
}

/// A GOAWAY frame (RFC 9113, section 6.8).
pub(super) fn goaway(last_stream: u32, code: h2::Reason, debug: &str) -> Vec<u8> {
    let length = u32::try_from(8 + debug.len()).unwrap_or(8);
    let mut frame = Vec::with_capacity(HEAD + 8 + debug.len());
    frame.extend_from_slice(&length.to_be_bytes()[1..]);
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&u32::from(code).to_be_bytes());
    frame.extend_from_slice(debug.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn headers_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PREFACE".to_vec();
        bytes.extend(frame(HEADERS, END_STREAM, 1, b"abc"));
        bytes.extend(frame(SETTINGS, ACK, 0, b""));
        bytes.extend(frame(DATA, 0, 3, &[7; 300]));
        for size in [1, 2, 5, 9, 50, bytes.len()] {
            let mut frames = Frames::after(7);
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                frames.pass(piece, |head| seen.push((head.kind, head.stream, head.length)));
            }
            assert_eq!(seen, [(HEADERS, 1, 3), (SETTINGS, 0, 0), (DATA, 3, 300)]);
            assert!(frames.at_boundary());
        }
    }

    #[test]
    fn settings_are_found_behind_other_frames() {
        let mut bytes = frame(SETTINGS, ACK, 0, b"");
        bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9]));
        assert_eq!(Frames::after(0).settings_in(&bytes), Some((9, 6)));
        assert_eq!(Frames::after(0).settings_in(&bytes[..9]), None);
    }

    #[test]
    fn limit_replaces_the_limit_or_else_the_window() {
        let both = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9, 0, 3, 0, 0, 0, 5]);
        let announced = announce(&both, 1);
        assert_eq!(announced[9..], [0, 4, 0, 0, 0, 9, 0, 3, 0, 0, 0, 1]);
        let window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9]);
        assert_eq!(announce(&window, 1000)[9..], [0, 3, 0, 0, 3, 232]);
    }
}
