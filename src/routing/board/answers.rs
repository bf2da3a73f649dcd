//! What an answer means for everyone else: samples of health, pauses, limits,
//! ejections, and whether a vendor is believed that says "gone".

use std::time::{Duration, Instant};

use pushyard_providers::{Answer, Outcome, Part, Processed};

use super::super::ProviderIndex;
use super::super::gone::{GoneVerdict, Guard};
use super::super::health::{Cause, Status};
use super::super::ramp::Ramp;
use super::{Board, KEPT_PAUSE, KeyIndex, Keys, Lane, Permit};
use crate::clock::{Now, Utc};

/// Throttled without a time: 1 s, doubled for each in a row, up to this.
const LONGEST_UNTIMED_PAUSE: Duration = Duration::from_secs(60);
/// A pause is up to this share longer than asked for.
const THROTTLE_JITTER: f64 = 0.1;
/// Devices that a vendor throttled, remembered at most.
const MAX_PAUSED_ADDRESSES: usize = 100_000;
/// A provider without an answer for this long has no traffic.
const TRAFFIC: Duration = Duration::from_secs(30);

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// What it was allowed by.
    pub permit: &'a Permit,
    /// The keys it concerned.
    pub keys: &'a Keys,
    /// What came back.
    pub answer: &'a Answer,
    /// How long it took.
    pub elapsed: Duration,
    /// The address, as a hash.
    pub address: u64,
}

impl Board {
    /// A call ended: what its answer means for everyone else. `chance` draws
    /// numbers in 0..1.
    pub fn answered(&mut self, ended: &Ended<'_>, now: Now, chance: &mut dyn FnMut() -> f64) {
        let Ended { permit, keys, answer, elapsed, address } = *ended;
        let lane = &mut self.lanes[permit.provider().at()];
        lane.in_flight -= 1;
        if answer.outcome != Outcome::Accepted {
            remember_error(lane, answer, now.utc);
        }
        lane.network.record(is_local(answer), now.instant);
        let rtt = lane.latency.rtt();
        match answer.outcome {
            Outcome::Accepted | Outcome::AddressGone | Outcome::MessageInvalid => {
                if answer.outcome == Outcome::Accepted {
                    lane.accepted += 1;
                    lane.spending.spend(lane.settings.cost_per_million / 1e6, now.utc);
                }
                lane.latency.record(elapsed, now.instant);
                let in_flight = lane.in_flight + 1;
                lane.limit.succeeded(in_flight);
                self.succeeded(ended, now.instant, chance);
            }
            Outcome::Throttled => {
                lane.latency.penalise(elapsed, answer.retry_after, now.instant);
                if answer.part != Part::Device {
                    lane.limit.overloaded(rtt, now.instant);
                }
                self.no_sample(keys, permit);
                self.throttled(permit.provider(), answer, address, now.instant, chance());
            }
            Outcome::Unavailable | Outcome::Ambiguous => {
                lane.latency.penalise(elapsed, answer.retry_after, now.instant);
                lane.limit.overloaded(rtt, now.instant);
                self.failed(permit, keys, &answer.part, now.instant, chance);
            }
            Outcome::AuthFailed => {
                self.no_sample(keys, permit);
                let key = self.key(permit.provider(), &answer.part, now.instant);
                // One origin's answer to one address says little of the credential.
                if !answer.part.is_origin() || self.guard(key).refused(address) {
                    self.eject(key, Cause::Auth, now.instant, chance());
                }
            }
            Outcome::Misconfigured => {
                lane.latency.record(elapsed, now.instant);
                self.no_sample(keys, permit);
                if answer.part != Part::Device {
                    let key = self.key(permit.provider(), &answer.part, now.instant);
                    if self.guard(key).misconfigured(address) {
                        self.eject(key, Cause::Misconfigured, now.instant, chance());
                    }
                }
            }
        }
        // One that a sinking limit swallows serves nobody.
        if self.note_room(permit.provider(), now.instant) {
            self.lanes[permit.provider().at()].returned.record(true, now.instant);
        }
    }

    /// A success of all the candidate's keys.
    fn succeeded(&mut self, ended: &Ended<'_>, now: Instant, chance: &mut dyn FnMut() -> f64) {
        let Ended { permit, keys, elapsed, .. } = *ended;
        for (n, index) in keys.iter().enumerate() {
            let key = &mut self.keys[index.0 as usize];
            key.untimed_throttles = 0;
            key.meter.record(now);
            if let Some(ramp) = &mut key.ramp {
                ramp.accepted(now);
            }
            let change = key.health.success(permit.is_canary(n), elapsed, now);
            self.note(*index, change);
        }
        self.weigh(ended, now, chance);
    }

    /// What the answer says of the keys' worth as witnesses.
    fn weigh(&mut self, ended: &Ended<'_>, now: Instant, chance: &mut dyn FnMut() -> f64) {
        let provider = ended.permit.provider();
        let most = self.lane(provider).settings.health.mass_gone_above;
        if ended.answer.outcome == Outcome::Accepted {
            for index in ended.keys {
                let confirmed = self.guard(*index).accepted(most, now);
                self.confirmed.extend(confirmed.into_iter().map(|address| (provider, address)));
            }
            return;
        }
        let Some(narrowest) = ended.keys.last().copied() else { return };
        if ended.answer.outcome != Outcome::AddressGone {
            self.guard(narrowest).answered();
        } else if self.guard(narrowest).gone(most) {
            self.eject(narrowest, Cause::Misconfigured, now, chance());
        }
    }

    /// What to do about an address that an answer, which the board has been told
    /// of, says is gone.
    pub fn gone(
        &mut self,
        provider: ProviderIndex,
        keys: &Keys,
        address: u64,
        now: Instant,
    ) -> GoneVerdict {
        let most = self.lane(provider).settings.health.mass_gone_above;
        let narrowest = keys.last().copied().unwrap_or(self.lane(provider).key);
        self.guard(narrowest).judge(address, most, now)
    }

    /// Addresses that were held and may be marked now, as hashes.
    pub fn take_confirmed(&mut self) -> Vec<(ProviderIndex, u64)> {
        std::mem::take(&mut self.confirmed)
    }

    /// Whether some key says of most addresses that they are gone: an alarm.
    pub fn mass_gone(&self) -> bool {
        self.keys
            .iter()
            .any(|key| key.guard.fires(self.lane(key.provider).settings.health.mass_gone_above))
    }

    /// Whether it is our own network that is down: several providers have traffic,
    /// and none of them can be reached.
    pub fn network_down(&self, now: Instant) -> bool {
        let busy = self.lanes.iter().filter_map(|lane| lane.network.latest(now));
        let (all, local) =
            busy.fold((0, 0), |(all, local), is_local| (all + 1, local + u32::from(is_local)));
        all > 1 && all == local
    }

    fn guard(&mut self, key: KeyIndex) -> &mut Guard {
        &mut self.keys[key.0 as usize].guard
    }

    pub(super) fn no_sample(&mut self, keys: &Keys, permit: &Permit) {
        for (n, index) in keys.iter().enumerate() {
            self.keys[index.0 as usize].health.end_without_sample(permit.is_canary(n));
        }
    }

    /// A failure is a sample of the key that the outcome names; of no key when
    /// it is about the device.
    fn failed(
        &mut self,
        permit: &Permit,
        keys: &Keys,
        part: &Part,
        now: Instant,
        chance: &mut dyn FnMut() -> f64,
    ) {
        let ours = self.network_down(now);
        let named = (*part != Part::Device).then(|| self.key(permit.provider(), part, now));
        for (n, index) in keys.iter().enumerate() {
            let canary = permit.is_canary(n);
            let health = &mut self.keys[index.0 as usize].health;
            if Some(*index) == named {
                let jitter = chance();
                let mut change = health.failure(canary, now, jitter);
                if let Some(change) = &mut change
                    && ours
                {
                    health.eject_at_base_length(jitter);
                    change.to = health.status();
                }
                self.note(*index, change);
            } else {
                health.end_without_sample(canary);
            }
        }
    }

    /// Up to a tenth longer than asked for, so that instances do not come back
    /// together.
    fn throttled(
        &mut self,
        provider: ProviderIndex,
        answer: &Answer,
        address: u64,
        now: Instant,
        jitter: f64,
    ) {
        let longer = 1.0 + THROTTLE_JITTER * jitter.clamp(0.0, 1.0);
        let cap = self.lane(provider).settings.retry.throttle_cap;
        if answer.part == Part::Device {
            let wish = answer.retry_after.filter(|wish| !wish.is_zero());
            let pause = wish.unwrap_or(Duration::from_secs(1)).min(cap).mul_f64(longer);
            self.pause_address(provider, address, now + pause, now);
            return;
        }
        let index = self.key(provider, &answer.part, now);
        let key = &mut self.keys[index.0 as usize];
        // "Retry-After: 0" with a refusal says nothing.
        let wish = answer.retry_after.filter(|wish| !wish.is_zero());
        let pause = wish.unwrap_or_else(|| {
            let doubled = Duration::from_secs(1) * 2u32.pow(key.untimed_throttles.min(6));
            key.untimed_throttles += 1;
            doubled.min(LONGEST_UNTIMED_PAUSE)
        });
        let pause = pause.min(cap).mul_f64(longer);
        let until = now + pause;
        key.paused_until = Some(key.paused_until.map_or(until, |present| present.max(until)));
        self.restless.insert(index);
        key.ramp = Some(Box::new(Ramp::after(key.ramp.as_deref(), &mut key.meter, until, now)));
        if pause > KEPT_PAUSE {
            self.changed.push(index);
        }
    }

    fn pause_address(
        &mut self,
        provider: ProviderIndex,
        address: u64,
        until: Instant,
        now: Instant,
    ) {
        if self.paused_addresses.len() >= MAX_PAUSED_ADDRESSES {
            self.paused_addresses.retain(|_, until| now < *until);
        }
        if self.paused_addresses.len() < MAX_PAUSED_ADDRESSES {
            self.paused_addresses.insert((provider, address), until);
        }
    }

    /// Takes a key out.
    pub fn eject(&mut self, index: KeyIndex, cause: Cause, now: Instant, jitter: f64) {
        let change = self.keys[index.0 as usize].health.eject(cause, now, jitter);
        self.note(index, change);
    }

    /// How long a provider may be silent with calls in flight: as configured, or
    /// four times what is usual there [o], because what is slow every day has not
    /// died today.
    pub fn stall_after(&self, provider: ProviderIndex, now: Instant) -> Duration {
        const USUAL_TIMES: u32 = 4;
        let lane = self.lane(provider);
        let usual = lane.latency.p99(now).unwrap_or_default();
        lane.settings.health.stall_after.max(usual.saturating_mul(USUAL_TIMES))
    }

    /// A provider with calls in flight has fallen silent. One that is out stays
    /// out for as long as it was to be.
    pub fn stalled(&mut self, provider: ProviderIndex, now: Instant, jitter: f64) {
        let key = self.lane(provider).key;
        match self.key_at(key).health.status() {
            Status::Ejected { .. } => {}
            Status::Healthy { .. } | Status::Degraded { .. } | Status::Probing { .. } => {
                self.eject(key, Cause::Stall, now, jitter);
            }
        }
    }

    /// A probe ended.
    pub fn probed(
        &mut self,
        provider: ProviderIndex,
        answer: &Answer,
        proves_credential: bool,
        now: Now,
        jitter: f64,
    ) {
        let index = self.lane(provider).key;
        let good = matches!(answer.outcome, Outcome::Accepted | Outcome::MessageInvalid);
        let proves = match self.key_at(index).health.status() {
            Status::Ejected { cause: Cause::Auth, .. } => proves_credential,
            Status::Healthy { .. }
            | Status::Degraded { .. }
            | Status::Ejected { .. }
            | Status::Probing { .. } => false,
        };
        let lane = &mut self.lanes[provider.at()];
        let detail = answer.detail.clone().or_else(|| answer.code.clone());
        lane.last_probe = Some((now.utc, good, detail.filter(|_| !good)));
        if !good {
            remember_error(lane, answer, now.utc);
        }
        let key = &mut self.keys[index.0 as usize];
        let change = key.health.probed(good, proves, now.instant, jitter);
        self.note(index, change);
    }
}

/// How a provider's latest call ended, as far as it tells of our own network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network(Option<(Instant, bool)>);

impl Network {
    pub(super) fn record(&mut self, local: bool, now: Instant) {
        self.0 = Some((now, local));
    }

    /// Whether the latest call failed before it reached the vendor; `None`: there
    /// was none of late.
    fn latest(self, now: Instant) -> Option<bool> {
        let (at, local) = self.0?;
        (now.saturating_duration_since(at) <= TRAFFIC).then_some(local)
    }
}

/// Failed by name, connection or TLS: the vendor did not see it.
fn is_local(answer: &Answer) -> bool {
    answer.outcome == Outcome::Unavailable
        && answer.processed == Processed::No
        && matches!(answer.code.as_deref(), Some("dns" | "connect" | "tls"))
}

fn remember_error(lane: &mut Lane, answer: &Answer, at: Utc) {
    const KEPT: usize = 10;
    if lane.last_errors.len() == KEPT {
        lane.last_errors.remove(0);
    }
    lane.last_errors.push((at, answer.clone()));
}
