//! Events for clients: what a backend is told by webhook is written down with
//! the outcome that it tells, as the next record of the same batch, so that
//! neither is ever on disk without the other. Telling it is for others
//! (`feedback`); a client that wants no events costs a look at an empty set.

use std::sync::Arc;

use rand::RngExt;

use super::super::deliveries::ClientIndex;
use super::{Effect, Engine};
use crate::clock::Now;
use crate::model::{
    DeliveryEvent, DeliveryId, EventId, EventKind, EventKinds, Message, Progress, Reason, State,
};
use crate::store::Record;

impl Engine {
    /// From now on clients are told of this.
    pub(super) fn subscribe(&mut self, subscribed: Vec<(Arc<str>, EventKinds)>) {
        self.subscribed = subscribed;
        for at in 0..self.clients.len() {
            let name = self.clients[at].name.clone();
            self.clients[at].events = self.subscription_of(&name);
        }
    }

    pub(super) fn subscription_of(&self, client: &Arc<str>) -> EventKinds {
        let known = self.subscribed.iter().find(|(name, _)| name == client);
        known.map(|(_, kinds)| *kinds).unwrap_or_default()
    }

    /// A delivery has come to be in a state that its client may want to know of.
    pub(super) fn announce(
        &mut self,
        client: ClientIndex,
        delivery: DeliveryId,
        progress: &Progress,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(kind) = EventKind::of_state(progress.state) else { return };
        if self.wants(client, kind) {
            let event = DeliveryEvent {
                id: self.next_event(now),
                kind,
                delivery,
                state: progress.state,
                reason: progress.reason,
                provider: progress.provider.clone(),
                address: None,
            };
            self.write_event(client, event, effects);
        }
    }

    /// A vendor has declared one of the delivery's addresses gone.
    pub(super) fn announce_gone(
        &mut self,
        client: ClientIndex,
        delivery: DeliveryId,
        provider: &Arc<str>,
        address: u8,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.wants(client, EventKind::AddressGone) {
            let event = DeliveryEvent {
                id: self.next_event(now),
                kind: EventKind::AddressGone,
                delivery,
                state: State::Sending,
                reason: None,
                provider: Some(provider.clone()),
                address: Some(address),
            };
            self.write_event(client, event, effects);
        }
    }

    /// Deliveries that no provider of the route could ever serve are born failed,
    /// in the batch that takes their message.
    pub(super) fn announce_born_failed(
        &mut self,
        client: ClientIndex,
        message: &Message,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for (n, _) in message.recipients.iter().enumerate().filter(|(_, r)| r.no_route) {
            let (state, reason) = (State::Failed, Some(Reason::NoRoute));
            let progress = Progress { state, reason, ..Progress::queued(now.utc) };
            self.announce(client, message.id.delivery(n as u16), &progress, now, effects);
        }
    }

    fn wants(&self, client: ClientIndex, kind: EventKind) -> bool {
        self.clients[client.0 as usize].events.has(kind)
    }

    fn next_event(&mut self, now: Now) -> EventId {
        self.last_event = self.last_event.after(now.utc, self.rng.random());
        self.last_event
    }

    fn write_event(
        &mut self,
        client: ClientIndex,
        event: DeliveryEvent,
        effects: &mut Vec<Effect>,
    ) {
        let name = self.clients[client.0 as usize].name.clone();
        self.write(Record::Event(name, Box::new(event)), effects);
    }
}
