//! Gone addresses: one is found out by an answer, avoided by all attempts after
//! it, and live again when it is registered anew.

use std::sync::Arc;

use pushyard_providers::{Address, Answer};
use smallvec::SmallVec;

use super::super::deliveries::StubRef;
use super::super::fair::End;
use super::{AfterFlush, Effect, Engine, Flight, Token};
use crate::clock::{Now, Utc};
use crate::model::{Body, DeliveryId, Excluded, Gone, Proof, Reason, Recipient, State, gone_key};
use crate::routing::{Candidate, GoneVerdict, ProviderIndex};
use crate::store::Record;

/// Addresses held at most until their keys prove good.
const MAX_HELD: usize = 10_000;

/// What an answer said of an address.
#[derive(Debug)]
pub(super) struct Found {
    gone: Gone,
    delivery: DeliveryId,
    address: u8,
}

/// A candidate whose address was declared gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    provider: ProviderIndex,
    address: u8,
    key: u128,
    /// It was registered anew since.
    healed: bool,
}

/// Those that are gone still.
pub(super) fn still_gone(known: &[Known]) -> SmallVec<[(ProviderIndex, u8); 2]> {
    let gone = known.iter().filter(|known| !known.healed);
    gone.map(|known| (known.provider, known.address)).collect()
}

impl Engine {
    /// A vendor has declared an address gone: the one place where that is believed.
    /// A "gone since" from before the app registered the address is about an
    /// earlier life of it.
    pub(super) fn address_gone(
        &mut self,
        flight: &Flight,
        answer: &Answer,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let stub = &self.deliveries.stubs[flight.stub];
        if stub.track.as_ref().is_some_and(|track| track.cancelled) {
            // Its user may have been erased meanwhile: nothing is held of it any more.
            return;
        }
        let message = flight.body.message();
        let recipient = &message.recipients[usize::from(stub.n)];
        let address = &recipient.addresses[usize::from(flight.candidate.address)];
        if let (Some(gone), Some(registered)) = (answer.gone_at, address.registered_at())
            && gone < registered
        {
            return;
        }
        let delivery = message.id.delivery(stub.n);
        let Candidate { provider, address: place, .. } = flight.candidate;
        let gone = Gone {
            client: message.client.clone(),
            provider: self.catalog.provider(flight.candidate.provider).settings.id.clone(),
            address: address.clone(),
            reference: recipient.reference.clone(),
            user: recipient.user.clone(),
            at: now.utc,
            vendor_at: answer.gone_at.map(Utc::from_ms),
            proof: Proof {
                status: answer.status,
                code: answer.code.clone(),
                body: answer.body.clone(),
            },
        };
        let keys = &flight.candidate.keys;
        let found = Found { gone, delivery, address: place };
        match self.board.gone(provider, keys, flight.address, now.instant) {
            GoneVerdict::Mark => self.mark_gone(found, now, effects),
            GoneVerdict::Hold => {
                // Should they be too many: another attempt finds out again.
                if self.held_gone.len() >= MAX_HELD {
                    self.held_gone.clear();
                }
                self.held_gone.insert((provider, flight.address), found);
            }
            GoneVerdict::Refuse => {}
        }
    }

    /// Those that were held because their key had not yet proved good.
    pub(super) fn mark_confirmed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for confirmed in self.board.take_confirmed() {
            if let Some(found) = self.held_gone.remove(&confirmed) {
                self.mark_gone(found, now, effects);
            }
        }
    }

    fn mark_gone(&mut self, found: Found, now: Now, effects: &mut Vec<Effect>) {
        let Found { gone, delivery, address } = found;
        let (client, provider) = (self.client(&gone.client), gone.provider.clone());
        self.gone.insert(gone.key(), gone.at);
        self.write(Record::Gone(Arc::new(gone)), effects);
        self.announce_gone(client, delivery, &provider, address, now, effects);
    }

    /// Whether no attempt may begin at this address of the provider.
    pub(super) fn is_gone(
        &self,
        body: &Body,
        provider: ProviderIndex,
        address: &Address,
        now: Now,
    ) -> bool {
        self.gone_since(&body.message().client, provider, address, now).is_some()
    }

    /// Since when an address of a client is gone at a provider; `None`: it is not.
    pub(super) fn gone_since(
        &self,
        client: &str,
        provider: ProviderIndex,
        address: &Address,
        now: Now,
    ) -> Option<Utc> {
        if self.gone.is_empty() {
            return None;
        }
        let id = &self.catalog.provider(provider).settings.id;
        let since = self.gone.since(gone_key(client, id, address), now.utc);
        since.filter(|since| !registered_after(address, *since))
    }

    /// The same of an attempt whose call has not been made.
    pub(super) fn flies_to_gone(&self, flight: &Flight, now: Now) -> bool {
        let recipients = &flight.body.message().recipients;
        let recipient = &recipients[usize::from(self.deliveries.stubs[flight.stub].n)];
        let Candidate { provider, address, .. } = flight.candidate;
        self.is_gone(&flight.body, provider, &recipient.addresses[usize::from(address)], now)
    }

    /// The candidates of a recipient that are gone; those that were registered
    /// anew since are healed.
    pub(super) fn gone_candidates(
        &mut self,
        client: &str,
        recipient: &Recipient,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> SmallVec<[(ProviderIndex, u8); 2]> {
        let known = self.known_gone(client, &recipient.addresses, now);
        self.heal(&known, effects);
        still_gone(&known)
    }

    /// What is known of addresses that are, or were, gone.
    pub(super) fn known_gone(
        &self,
        client: &str,
        addresses: &[Address],
        now: Now,
    ) -> SmallVec<[Known; 2]> {
        let mut known = SmallVec::new();
        if self.gone.is_empty() {
            return known;
        }
        for (n, address) in addresses.iter().enumerate() {
            for (provider, key) in self.gone_keys(client, address) {
                let Some(since) = self.gone.since(key, now.utc) else { continue };
                let healed = registered_after(address, since);
                // At most MAX_ADDRESSES.
                known.push(Known { provider, address: n as u8, key, healed });
            }
        }
        known
    }

    /// Addresses that were registered after they were declared gone are live again.
    fn heal(&mut self, known: &[Known], effects: &mut Vec<Effect>) {
        for Known { key, .. } in known.iter().filter(|known| known.healed) {
            if self.gone.heal(*key) {
                self.write(Record::Healed(*key), effects);
            }
        }
    }

    /// The keys of an address at the providers of its kind.
    fn gone_keys(&self, client: &str, address: &Address) -> SmallVec<[(ProviderIndex, u128); 2]> {
        let of_kind = |at: usize| {
            let settings = &self.catalog.providers[at].settings;
            (settings.kind == address.kind().name)
                .then(|| (ProviderIndex(at as u16), gone_key(client, &settings.id, address)))
        };
        (0..self.catalog.providers.len()).filter_map(of_kind).collect()
    }

    /// A delivery that has no other candidates than gone ones says so in its record.
    pub(super) fn note_gone(&mut self, at: StubRef, gone: &[(ProviderIndex, u8)]) {
        let shape = self.deliveries.stubs[at].shape;
        if gone.is_empty() || !self.lanes.lane(shape).shape.candidates.is_empty() {
            return;
        }
        for (provider, address) in gone {
            let provider = self.catalog.provider(*provider).settings.id.clone();
            let gone = Excluded::Candidate { provider, address: *address, gone: true, until: None };
            let excluded = &mut self.track(at).progress.excluded;
            if !excluded.contains(&gone) {
                excluded.push(gone);
            }
        }
    }

    /// How a delivery that has just come in ends at once, if it does: every address
    /// is gone, or its user has been erased.
    pub(super) fn unreachable(
        &self,
        at: StubRef,
        recipient: &Recipient,
        now: Now,
    ) -> Option<(State, Reason)> {
        if recipient.addresses.is_empty() {
            return Some((State::Cancelled, Reason::CancelledByClient));
        }
        if self.gone.is_empty() {
            return None;
        }
        let shape = &self.lanes.lane(self.deliveries.stubs[at].shape).shape;
        if !shape.candidates.is_empty() {
            return None;
        }
        // Where none is gone, it is the configuration that has nothing for it.
        let client = &self.clients[self.deliveries.message_of(at).client.0 as usize].name;
        let gone = |address| {
            let keys = self.gone_keys(client, address);
            keys.iter().any(|(_, key)| self.gone.since(*key, now.utc).is_some())
        };
        recipient.addresses.iter().any(gone).then_some((State::Failed, Reason::Unreachable))
    }

    /// A delivery was about to go to an address that is gone by now: elsewhere, or
    /// nowhere.
    pub(super) fn leave_gone(
        &mut self,
        at: StubRef,
        candidate: &Candidate,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.take_out(at);
        let provider = self.catalog.provider(candidate.provider).settings.id.clone();
        let address = candidate.address;
        let gone = Excluded::Candidate { provider, address, gone: true, until: None };
        self.track(at).progress.excluded.push(gone);
        let pair = (candidate.provider, candidate.address);
        if self.keep_candidates(at, |other| (other.provider, other.address) != pair) {
            self.enter(at, End::Front, now);
        } else {
            self.settle(at, State::Failed, Some(Reason::Unreachable), now, effects);
        }
    }

    /// Writes what is no push. What is refused is refused before anything is written.
    pub(super) fn keep(
        &mut self,
        token: Token,
        records: Vec<Record>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(rejected) = self.takes_more() {
            effects.push(Effect::Rejected(token, rejected));
            return;
        }
        for record in records {
            if let Record::Device(user, _, Some(device)) = &record {
                let known = self.known_gone(&user.client, &device.addresses, now);
                self.heal(&known, effects);
            }
            self.write(record, effects);
        }
        self.unflushed.push_back((self.written, AfterFlush::Kept(token)));
    }
}

fn registered_after(address: &Address, since: Utc) -> bool {
    address.registered_at().is_some_and(|registered| registered >= since.ms())
}
