//! How many streams a connection may have open.
//!
//! Three things move it: whether the client has proved its credential (APNs
//! allows one stream until the first authenticated request was answered), whether
//! its last push was refused, and what the vendor is told to allow at the moment.
//! What is announced to the client, and when that binds it, is the wire's affair.

use http::StatusCode;

use crate::faults::Behaviour;
use crate::vendor::Streams;

/// How many streams the client may have open, and what it has been told of that.
pub(super) struct Allowed {
    pub(super) streams: Streams,
    /// The vendor's present behaviour allows no more.
    pub(super) most: Option<u32>,
    /// An authenticated request was answered.
    proven: bool,
    /// The last push was refused.
    relapsed: bool,
    /// What was announced last.
    pub(super) announced: u32,
}

impl Allowed {
    pub(super) fn new(streams: Streams, behaviour: &Behaviour) -> Self {
        let most = behaviour.max_streams;
        let mut allowed = Self { streams, most, proven: false, relapsed: false, announced: 0 };
        allowed.announced = allowed.now();
        allowed
    }

    pub(super) fn now(&self) -> u32 {
        let Streams { at_first, proven, .. } = self.streams;
        let usual = if self.proven && !self.relapsed { proven } else { at_first };
        self.most.map_or(usual, |most| most.min(usual))
    }

    /// An answer went out.
    pub(super) fn answered(&mut self, status: StatusCode, proves: bool) {
        self.proven |= proves;
        if self.streams.relapses {
            // 410 does not count as an error.
            self.relapsed = status.is_client_error() && status != StatusCode::GONE
                || self.relapsed && !status.is_success();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::Excess;

    #[test]
    fn refused_pushes_bring_the_first_limit_back_until_one_is_taken() {
        let streams = Streams { at_first: 1, proven: 100, relapses: true, excess: Excess::Refuse };
        let mut allowed = Allowed::new(streams, &Behaviour::default());
        let mut after = |status: u16, proves| {
            allowed.answered(StatusCode::from_u16(status).unwrap(), proves);
            allowed.now()
        };
        assert_eq!(after(403, false), 1);
        assert_eq!(after(200, true), 100);
        assert_eq!(after(410, true), 100, "a token that is gone is no error");
        assert_eq!(after(400, true), 1);
        assert_eq!(after(410, true), 1);
        assert_eq!(after(503, true), 1);
        assert_eq!(after(200, true), 100);
        allowed.most = Some(7);
        assert_eq!(allowed.now(), 7);
    }
}
