//! Why someone is left out, in words: a sentence for people beside the API's word.
//! First what keeps a provider and an address from being a candidate at all, which
//! dispatch drops in silence; then why a candidate is not usable now, which is the
//! plan's own reason.

use super::super::super::deliveries::Track;
use super::super::Engine;
use super::super::intake::bars;
use super::super::pick::SATURATED;
use super::super::view::utc_of;
use super::Asked;
use crate::clock::{Now, Utc};
use crate::model::{Excluded, Progress};
use crate::routing::{
    Candidate, Cause, Closed, HealthSettings, Key, KeyIndex, Keys, LeftOut, Pair, Pass,
    ProviderIndex, Serves, Status,
};

/// What was found out before anyone was asked whether it is usable now.
pub(super) struct Unfit {
    pub(super) provider: ProviderIndex,
    pub(super) address: u8,
    pub(super) tier: u8,
    pub(super) reason: &'static str,
    pub(super) detail: String,
    pub(super) until: Option<Utc>,
}

/// What there is to say of a pair.
pub(super) enum Verdict {
    Fits,
    Told(Box<Unfit>),
    /// The pair is none: each of the two fits another one.
    Untold,
}

/// Finds the words.
pub(super) struct Judge<'a> {
    pub(super) engine: &'a Engine,
    pub(super) asked: &'a Asked,
    pub(super) record: Option<&'a Progress>,
    pub(super) now: Now,
}

impl Judge<'_> {
    /// What keeps a pair from being a candidate at all.
    pub(super) fn unfit(&self, pair: &Pair<'_>) -> Verdict {
        let Pair { provider, address, tier, .. } = *pair;
        let found = match pair.serves {
            Serves::Yes => self.gone(pair).or_else(|| self.excluded(pair)),
            Serves::OtherKind => match self.other_kind(pair) {
                Some(detail) => Some(("kind", detail, None)),
                None => return Verdict::Untold,
            },
            Serves::OtherApp => {
                let detail = "this provider does not have the address's app or project".to_owned();
                Some(("app", detail, None))
            }
            Serves::OtherRegion => Some(("region", self.other_region(provider), None)),
        };
        match found {
            None => Verdict::Fits,
            Some((reason, detail, until)) => {
                Verdict::Told(Box::new(Unfit { provider, address, tier, reason, detail, until }))
            }
        }
    }

    /// A provider without an address of its kind, and an address without a provider
    /// of its kind, are told; every pair of two that fit others would be noise.
    fn other_kind(&self, pair: &Pair<'_>) -> Option<String> {
        let engine = self.engine;
        let settings = &engine.catalog.provider(pair.provider).settings;
        let (wanted, kind) = (settings.kind, pair.target.kind().name);
        if wanted == kind {
            let bound = pair.target.provider().unwrap_or_default();
            return Some(format!("this address is bound to provider {bound:?}"));
        }
        let message = self.asked.body.message();
        let recipient = &message.recipients[usize::from(self.asked.n)];
        if recipient.addresses.iter().all(|address| address.kind().name != wanted) {
            return Some(format!("the recipient has no {wanted} address"));
        }
        let route = engine.catalog.route(&message.route);
        let mut members = route.into_iter().flat_map(|route| route.tiers.iter().flatten());
        let served =
            members.any(|member| engine.catalog.provider(member.provider).settings.kind == kind);
        (!served).then(|| format!("no provider of route {:?} is of kind {kind}", &*message.route))
    }

    fn other_region(&self, provider: ProviderIndex) -> String {
        let recipient = &self.asked.body.message().recipients[usize::from(self.asked.n)];
        let wanted = recipient.region.as_deref().unwrap_or_default();
        let region = self.engine.catalog.provider(provider).settings.region.as_deref();
        let region = region.unwrap_or_default();
        format!("the recipient is in region {wanted:?}, this provider in {region:?}")
    }

    fn gone(&self, pair: &Pair<'_>) -> Option<(&'static str, String, Option<Utc>)> {
        let client = &self.asked.body.message().client;
        let since = self.engine.gone_since(client, pair.provider, pair.target, self.now);
        since.map(|since| {
            let detail = format!("the vendor declared it gone at {}", since.rfc3339());
            ("address_gone", detail, None)
        })
    }

    /// What the delivery's own record says.
    fn excluded(&self, pair: &Pair<'_>) -> Option<(&'static str, String, Option<Utc>)> {
        let settings = &self.engine.catalog.provider(pair.provider).settings;
        let word = LeftOut::ExcludedByDelivery.word();
        let excluded = self.record?.excluded.iter();
        excluded.filter(|one| bars(one, settings, pair.address)).find_map(|one| match one {
            Excluded::Kind(kind) => Some((word, format!("{kind} cannot take this message"), None)),
            Excluded::Candidate { gone: true, until: None, .. } => {
                Some(("address_gone", "the vendor declared it gone".to_owned(), None))
            }
            Excluded::Candidate { until: None, .. } => Some((word, REFUSED_HERE.to_owned(), None)),
            Excluded::Candidate { until: Some(until), .. } => {
                let rests = *until > self.now.utc;
                rests.then(|| (word, REFUSED_HERE.to_owned(), Some(*until)))
            }
        })
    }

    /// What is wrong with the message for a provider that cannot take it.
    pub(super) fn unable(&self, provider: ProviderIndex) -> Option<&str> {
        let serial = self.engine.catalog.provider(provider).serial;
        let mut unable = self.asked.unable.iter();
        unable.find(|(number, _)| *number == serial).map(|(_, detail)| &**detail)
    }

    /// Why a candidate is not usable now, for people.
    pub(super) fn detail(
        &self,
        candidate: &Candidate,
        closed: Closed,
        track: Option<&Track>,
    ) -> String {
        let board = &self.engine.board;
        let lane = board.lane(candidate.provider);
        let key = self.closing(candidate);
        let part = key.map_or(String::new(), |key| match key.part.text() {
            "" => String::new(),
            part => format!(" ({part})"),
        });
        match closed.why {
            LeftOut::ExcludedByDelivery => self.own_words(candidate, track),
            LeftOut::AddressPaused => "the vendor asked to wait with this device".to_owned(),
            LeftOut::Budget => "its budget is spent, and hard".to_owned(),
            // The operator's own words are for operators.
            LeftOut::Drained => "drained by an operator".to_owned(),
            LeftOut::Ejected if board.held(candidate.provider).is_some() => {
                "ejected by an operator".to_owned()
            }
            LeftOut::Ejected => {
                let health = &lane.settings.health;
                let cause = key.map(|key| cause(key.health.status(), health));
                cause.unwrap_or_default() + &part
            }
            LeftOut::Probing => {
                format!("on probation: one canary at a time, one a second{part}")
            }
            LeftOut::Throttled => {
                let paused = key.is_some_and(|key| {
                    key.paused_until.is_some_and(|until| until > self.now.instant)
                });
                let what = if paused {
                    "the vendor asked to wait"
                } else {
                    "it comes back slowly from the vendor's pause"
                };
                format!("{what}{part}")
            }
            LeftOut::Saturated => {
                let seconds = SATURATED.as_secs();
                format!("a call would wait longer than {seconds} s for a permit")
            }
        }
    }

    fn own_words(&self, candidate: &Candidate, track: Option<&Track>) -> String {
        if let Some(unable) = self.unable(candidate.provider) {
            return unable.to_owned();
        }
        let pair = (candidate.provider, candidate.address);
        let tried = track.is_some_and(|track| track.tried.contains(&pair));
        let resting = track.is_some_and(|track| {
            track.resting.iter().any(|(provider, address, _)| (*provider, *address) == pair)
        });
        let fan = track.and_then(|track| track.fan);
        if tried {
            "tried in this round already".to_owned()
        } else if fan.is_some_and(|fan| fan.tier != candidate.tier) {
            "it is being sent to all of another tier".to_owned()
        } else if resting {
            REFUSED_HERE.to_owned()
        } else {
            "an attempt may have been accepted, and the message forbids a copy".to_owned()
        }
    }

    /// When time alone may let it in.
    pub(super) fn until(&self, candidate: &Candidate, closed: Closed) -> Option<Utc> {
        let held = self.engine.board.held(candidate.provider);
        match held.filter(|_| matches!(closed.why, LeftOut::Ejected | LeftOut::Drained)) {
            Some(hold) => hold.until,
            None => closed.at.map(|at| utc_of(at, self.now)),
        }
    }

    /// The first key that lets nothing through.
    fn closing(&self, candidate: &Candidate) -> Option<&Key> {
        let board = &self.engine.board;
        let closed = |key: &&KeyIndex| {
            board.open(&Keys::from_slice(&[**key]), Pass::Usual, self.now.instant).is_err()
        };
        candidate.keys.iter().find(closed).map(|key| board.key_at(*key))
    }
}

/// A mismatch of account and address: no other delivery's matter.
const REFUSED_HERE: &str = "the vendor refused this delivery here";

/// Why a breaker is open, for people.
fn cause(status: Status, settings: &HealthSettings) -> String {
    let (Status::Ejected { cause, .. }
    | Status::Probing { cause, .. }
    | Status::Degraded { cause, .. }) = status
    else {
        return String::new();
    };
    match cause {
        Cause::Consecutive => format!("{} failures in a row", settings.consecutive_failures),
        Cause::Ratio => {
            let percent = settings.eject_below * 100.0;
            format!("fewer than {percent:.0} % of its calls succeeded")
        }
        Cause::Latency => "its answers are slow".to_owned(),
        Cause::Stall => "it has fallen silent: calls in flight, and not a byte".to_owned(),
        Cause::Auth => "it refused the credential".to_owned(),
        Cause::Misconfigured => "it says that the configuration is wrong".to_owned(),
        Cause::Probe => "its probes failed".to_owned(),
        Cause::Operator => "put back on probation by an operator".to_owned(),
    }
}
