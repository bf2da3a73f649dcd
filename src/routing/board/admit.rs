//! Who may be called now: breakers, pauses, permits and pace, and what a permit
//! that was given is still worth. Looking is cheap and changes nothing; only
//! `admit` gives a permit, and only `withdraw` and an answer take one back.

use std::time::Instant;

use super::super::ProviderIndex;
use super::super::health::{Gate, Pass, Status};
use super::{Board, Keys};

/// The right to make one call. Only the board makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    provider: ProviderIndex,
    /// Bit n: for the n-th key this call is a canary.
    canary: u8,
    pass: Pass,
    _made_here: (),
}

impl Permit {
    /// Whom to call.
    pub fn provider(&self) -> ProviderIndex {
        self.provider
    }

    /// What let it pass.
    pub fn pass(&self) -> Pass {
        self.pass
    }

    /// Whether it was given only because a life was nearly over.
    pub fn is_last_try(&self) -> bool {
        self.pass == Pass::LastTry
    }

    pub(super) fn is_canary(&self, key: usize) -> bool {
        self.canary & (1 << key) != 0
    }
}

/// Why a candidate is not used now. The words are the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// This delivery has been there, or the vendor cannot take its message.
    ExcludedByDelivery,
    /// The vendor asked to wait with this device.
    AddressPaused,
    /// Its breaker is open.
    Ejected,
    /// Its budget is over, and hard.
    Budget,
    /// An operator keeps it out of use.
    Drained,
    /// It is on probation and its canary is out.
    Probing,
    /// The vendor asked to wait.
    Throttled,
    /// No permit is free, and waiting for one would take too long.
    Saturated,
}

impl LeftOut {
    /// The word used in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExcludedByDelivery => "excluded_by_delivery",
            Self::AddressPaused => "address_paused",
            Self::Ejected => "ejected",
            Self::Budget => "budget",
            Self::Drained => "drained",
            Self::Probing => "probing",
            Self::Throttled => "throttled",
            Self::Saturated => "saturated",
        }
    }
}

/// Why a candidate's keys let nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The first reason.
    pub why: LeftOut,
    /// When time alone may change that.
    pub at: Option<Instant>,
}

impl Board {
    /// Whether all keys let a delivery through, or the first reason why not and
    /// when to look again.
    pub fn open(&self, keys: &Keys, pass: Pass, now: Instant) -> Result<(), Closed> {
        for key in keys {
            let key = self.key_at(*key);
            if let Some(hold) = &self.lane(key.provider).hold {
                let why = if hold.ejected { LeftOut::Ejected } else { LeftOut::Drained };
                return Err(Closed { why, at: None });
            }
            if let Some(until) = key.paused_until.filter(|until| now < *until) {
                return Err(Closed { why: LeftOut::Throttled, at: Some(until) });
            }
            if let Some(until) = key.paced_until(now) {
                return Err(Closed { why: LeftOut::Throttled, at: Some(until) });
            }
            match key.health.gate(pass, now) {
                Gate::Open | Gate::Canary | Gate::LastTry => {}
                Gate::Later(at) => return Err(Closed { why: LeftOut::Probing, at: Some(at) }),
                Gate::Busy => return Err(Closed { why: LeftOut::Probing, at: None }),
                Gate::Closed => {
                    return Err(Closed { why: LeftOut::Ejected, at: key.health.wake_at(now) });
                }
            }
        }
        Ok(())
    }

    /// Whether some key was ejected for something that time may mend, and no
    /// operator keeps it out.
    pub fn ejected_transiently(&self, keys: &Keys) -> bool {
        if keys.iter().any(|key| self.lane(self.key_at(*key).provider).hold.is_some()) {
            return false;
        }
        keys.iter().any(|key| match self.key_at(*key).health.status() {
            Status::Ejected { cause, .. } => cause.transient(),
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => false,
        })
    }

    /// Whether what goes there now goes as a canary.
    pub fn tries_out(&self, keys: &Keys) -> bool {
        keys.iter().any(|key| match self.key_at(*key).health.status() {
            Status::Healthy { .. } | Status::Degraded { .. } => false,
            Status::Ejected { .. } | Status::Probing { .. } => true,
        })
    }

    /// Whether any key was ejected for something that time may mend.
    pub fn any_out_for_a_time(&self) -> bool {
        self.restless.iter().any(|key| match self.key_at(*key).health.status() {
            Status::Ejected { cause, .. } => cause.transient(),
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => false,
        })
    }

    /// How much of a tier's load the keys let the provider carry: 0..1.
    pub fn availability(&self, keys: &Keys, now: Instant) -> f64 {
        keys.iter().map(|key| self.key_at(*key).health.availability(now)).fold(1.0, f64::min)
    }

    /// The smallest ramp of the keys: 1, or less in slow start.
    pub fn ramp(&self, keys: &Keys, now: Instant) -> f64 {
        keys.iter().map(|key| self.key_at(*key).health.ramp(now)).fold(1.0, f64::min)
    }

    /// How many calls may be in flight at a provider: its limit, scaled by its
    /// slow start, and at least one.
    pub fn allowed(&self, provider: ProviderIndex, now: Instant) -> u32 {
        let lane = self.lane(provider);
        let ramp = self.key_at(lane.key).health.ramp(now);
        ((f64::from(lane.limit.get()) * ramp) as u32).max(1)
    }

    /// When the provider has a permit and a token: now, at a known time, or when
    /// a call in flight ends.
    pub fn permit_at(&self, provider: ProviderIndex, now: Instant) -> Option<Instant> {
        let lane = self.lane(provider);
        (lane.in_flight < self.allowed(provider, now)).then(|| lane.pace.ready_at(now))
    }

    /// While all permits are out: since when, and how many came back in the last
    /// second. The average latency would not show that a vendor, or one of its
    /// apps, has fallen silent: it is that of the calls that were answered.
    pub fn full(&self, provider: ProviderIndex, now: Instant) -> Option<(Instant, u32)> {
        let lane = self.lane(provider);
        let since = lane.full_since.filter(|_| self.permit_at(provider, now).is_none())?;
        Some((since, lane.returned.counts(now).samples()))
    }

    /// Takes a permit. `None`: none is free now, or a key does not let it through.
    pub fn admit(
        &mut self,
        provider: ProviderIndex,
        keys: &Keys,
        pass: Pass,
        now: Instant,
    ) -> Option<Permit> {
        if self.permit_at(provider, now) != Some(now) || self.open(keys, pass, now).is_err() {
            return None;
        }
        let lane = &mut self.lanes[provider.at()];
        lane.in_flight += 1;
        lane.pace.take(now);
        if lane.free_since.is_some_and(|since| since < now) {
            lane.full_since = None;
        }
        self.note_room(provider, now);
        let mut canary = 0;
        for (n, key) in keys.iter().enumerate() {
            if let Some(ramp) = &mut self.keys[key.0 as usize].ramp {
                ramp.take(now);
            }
            if self.keys[key.0 as usize].health.begin(pass, now) {
                canary |= 1 << n;
            }
        }
        Some(Permit { provider, canary, pass, _made_here: () })
    }

    /// Whether a permit whose call has not been made yet is still good: what has
    /// been ejected or paused since it was given takes it back.
    pub fn holds(&self, permit: &Permit, keys: &Keys, now: Instant) -> bool {
        let held = self.lane(permit.provider).hold.is_some();
        !held
            && keys.iter().enumerate().all(|(n, key)| {
                let key = self.key_at(*key);
                let paused = key.paused_until.is_some_and(|until| now < until);
                let open = match key.health.status() {
                    Status::Healthy { .. } | Status::Degraded { .. } => true,
                    Status::Ejected { cause, .. } => {
                        let let_through = permit.is_canary(n) || permit.is_last_try();
                        let_through && cause.transient()
                    }
                    Status::Probing { .. } => permit.is_canary(n),
                };
                open && !paused
            })
    }

    /// A permit comes back without a call having been made.
    pub fn withdraw(&mut self, permit: &Permit, keys: &Keys, now: Instant) {
        self.lanes[permit.provider.at()].in_flight -= 1;
        self.no_sample(keys, permit);
        self.note_room(permit.provider, now);
    }

    /// Permits were given, came back, or became more or fewer. Returns whether
    /// there is one to give.
    pub(super) fn note_room(&mut self, provider: ProviderIndex, now: Instant) -> bool {
        let allowed = self.allowed(provider, now);
        let lane = &mut self.lanes[provider.at()];
        if lane.in_flight >= allowed {
            lane.free_since = None;
            lane.full_since.get_or_insert(now);
            false
        } else {
            lane.free_since.get_or_insert(now);
            true
        }
    }

    /// Whether the device was paused by the vendor, and until when.
    pub fn address_paused(
        &self,
        provider: ProviderIndex,
        address: impl FnOnce() -> u64,
        now: Instant,
    ) -> Option<Instant> {
        // Mostly there is none, and hashing an address costs more than looking.
        if self.paused_addresses.is_empty() {
            return None;
        }
        self.paused_addresses.get(&(provider, address())).copied().filter(|until| now < *until)
    }
}
