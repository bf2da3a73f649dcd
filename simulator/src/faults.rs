//! The ways in which a vendor can misbehave.
//!
//! Two sources: a *behaviour* is set on a whole vendor through the control
//! port; a *quirk* is asked for by one device token, so that a test needs no
//! control port. Quirks stand here only as far as every vendor has them; the
//! answers that one vendor alone gives are in its own module.

use std::time::Duration;

use serde::Serialize;

/// What a vendor is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Answers as it should.
    #[default]
    Healthy,
    /// Takes and answers late.
    Slow,
    /// Answers with a server error.
    Failing,
    /// Answers that it gets too much.
    Throttling,
    /// Answers that the credential is not good.
    Unauthorised,
    /// Accepts connections, reads, and never answers, not even a PING.
    Blackhole,
    /// Refuses connections and closes those it has.
    Refusing,
    /// Leaves attempts to connect unanswered; is a blackhole to those it has.
    Unreachable,
    /// Resets the connection when a request comes.
    Reset,
    /// Answers each request with a GOAWAY that says it was not processed.
    Goaway,
    /// Accepts connections and refuses every handshake; closes those it has.
    Tls,
}

impl Mode {
    /// All of them, for reading and for error texts.
    pub const ALL: [Self; 11] = [
        Self::Healthy,
        Self::Slow,
        Self::Failing,
        Self::Throttling,
        Self::Unauthorised,
        Self::Blackhole,
        Self::Refusing,
        Self::Unreachable,
        Self::Reset,
        Self::Goaway,
        Self::Tls,
    ];

    /// The word of the control port.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Throttling => "throttling",
            Self::Unauthorised => "unauthorised",
            Self::Blackhole => "blackhole",
            Self::Refusing => "refusing",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Goaway => "goaway",
            Self::Tls => "tls",
        }
    }

    /// Whether this is about connections as a whole, so that it cannot be had
    /// for a share of the requests.
    pub(crate) fn closes_the_door(self) -> bool {
        matches!(self, Self::Refusing | Self::Unreachable | Self::Tls)
    }

    /// Whether connections that exist are closed.
    pub(crate) fn hangs_up(self) -> bool {
        matches!(self, Self::Refusing | Self::Tls)
    }
}

/// How a vendor behaves until it is told otherwise. The default is healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// What it does.
    pub mode: Mode,
    /// The status of `failing`; 500 when `None`.
    pub status: Option<u16>,
    /// The part of the requests that the mode applies to, from 0 to 1.
    pub share: f64,
    /// How long before a push is taken. `None`: at once, or 3 s when `slow`.
    pub latency: Option<Duration>,
    /// How much later than that at most; each push draws its own, evenly.
    pub latency_spread: Duration,
    /// How long between taking a push and answering.
    pub ack_latency: Duration,
    /// `Retry-After` of a 429 or 503, in seconds.
    pub retry_after_s: Option<u64>,
    /// How long until the vendor is healthy again; `None`: until told.
    pub lasts: Option<Duration>,
    /// Requests a second beyond which it answers 429, in any mode.
    pub limit_per_second: Option<u32>,
    /// Answers after which a connection goes away with `NO_ERROR`: what was
    /// begun is still answered, what comes later was not processed.
    pub goaway_after: Option<u32>,
    /// Age at which a connection goes away in the same manner.
    pub goaway_after_age: Option<Duration>,
    /// Streams that a connection may have open, where that is fewer than usual.
    pub max_streams: Option<u32>,
    /// How far the vendor's clock is ahead, in seconds: in its `Date`, and where
    /// it judges times.
    pub clock_offset_s: i64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::of(Mode::Healthy)
    }
}

impl Behaviour {
    /// The mode alone, for every request.
    pub fn of(mode: Mode) -> Self {
        Self {
            mode,
            status: None,
            share: 1.0,
            latency: None,
            latency_spread: Duration::ZERO,
            ack_latency: Duration::ZERO,
            retry_after_s: None,
            lasts: None,
            limit_per_second: None,
            goaway_after: None,
            goaway_after_age: None,
            max_streams: None,
            clock_offset_s: 0,
        }
    }

    /// Whether connections that exist fall silent.
    pub(crate) fn mutes(&self) -> bool {
        match self.mode {
            Mode::Unreachable => true,
            Mode::Blackhole => self.share >= 1.0,
            Mode::Healthy
            | Mode::Slow
            | Mode::Failing
            | Mode::Throttling
            | Mode::Unauthorised
            | Mode::Refusing
            | Mode::Reset
            | Mode::Goaway
            | Mode::Tls => false,
        }
    }
}

/// What a token asks for, at any vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    Gone,
    Bad,
    Throttled { retry_after_s: Option<u64> },
    Internal,
    Unavailable,
    Unauthorised,
    Slow(Duration),
    Hang,
    Lost,
    Reset,
    Goaway,
    Html502,
}

impl Quirk {
    /// Reads the beginning of a token.
    pub(crate) fn of(token: &str) -> Option<Self> {
        // Nearly all tokens leave here: no word before a hyphen is longer.
        let end = token.bytes().take(16).position(|byte| byte == b'-')?;
        let word = &token[..end];
        Some(match word {
            "gone" => Self::Gone,
            "bad" => Self::Bad,
            "429" => Self::Throttled { retry_after_s: None },
            "500" => Self::Internal,
            "503" => Self::Unavailable,
            "401" => Self::Unauthorised,
            "hang" => Self::Hang,
            "lost" => Self::Lost,
            "reset" => Self::Reset,
            "goaway" => Self::Goaway,
            "html502" => Self::Html502,
            _ => {
                if let Some(seconds) = numbered(word, "429ra") {
                    Self::Throttled { retry_after_s: Some(seconds) }
                } else {
                    Self::Slow(Duration::from_millis(numbered(word, "slow")?))
                }
            }
        })
    }
}

/// The number after a prefix: `numbered("slow250", "slow")` is 250.
pub(crate) fn numbered(word: &str, prefix: &str) -> Option<u64> {
    let digits = word.strip_prefix(prefix)?;
    // `parse` alone would take a leading plus sign.
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_quirk() {
        let table = [
            ("gone-1", Some(Quirk::Gone)),
            ("bad-", Some(Quirk::Bad)),
            ("429-x", Some(Quirk::Throttled { retry_after_s: None })),
            ("429ra17-x", Some(Quirk::Throttled { retry_after_s: Some(17) })),
            ("slow250-x", Some(Quirk::Slow(Duration::from_millis(250)))),
            ("slow-x", None),
            ("slow+5-x", None),
            ("html502-x", Some(Quirk::Html502)),
            ("gonex", None),
            ("ordinary-token", None),
            ("", None),
        ];
        for (token, expected) in table {
            assert_eq!(Quirk::of(token), expected, "{token}");
        }
    }
}
