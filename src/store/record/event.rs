//! The records of events that wait to be told, and of what operators did.

use serde::{Deserialize, Serialize};

use super::{
    Undecodable, kind_from, kind_number, reason_from, reason_number, state_from, state_number,
};
use crate::clock::Utc;
use crate::model::{DeliveryEvent, DeliveryId, EventId, Message};
use crate::store::{Action, OutboxEvent};

#[derive(Serialize, Deserialize)]
pub(super) struct StoredEvent<'a> {
    kind: u8,
    delivery: u128,
    reference: Option<&'a str>,
    state: u8,
    reason: Option<u8>,
    provider: Option<&'a str>,
    address: Option<(&'a str, &'a str)>,
    #[serde(borrow)]
    metadata: Vec<(&'a str, &'a str)>,
}

impl<'a> StoredEvent<'a> {
    pub(super) fn of(event: &'a DeliveryEvent, message: Option<&'a Message>) -> Self {
        let DeliveryEvent { id: _, kind, delivery, state, reason, provider, address } = event;
        let recipient =
            message.and_then(|message| message.recipients.get(usize::from(delivery.n())));
        let address = address.and_then(|at| recipient?.addresses.get(usize::from(at)));
        let metadata = message.into_iter().flat_map(|message| &message.metadata);
        Self {
            kind: kind_number(*kind),
            delivery: delivery.as_u128(),
            reference: recipient.and_then(|recipient| recipient.reference.as_deref()),
            state: state_number(*state),
            reason: reason.map(reason_number),
            provider: provider.as_deref(),
            address: address.and_then(|address| {
                let (_, first) = address.values().next()?;
                Some((address.kind().name, first))
            }),
            metadata: metadata.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }
    }

    pub(super) fn into_event(self, id: EventId) -> Result<OutboxEvent, Undecodable> {
        let owned = |(one, other): (&str, &str)| (one.to_owned(), other.to_owned());
        Ok(OutboxEvent {
            id,
            kind: kind_from(self.kind)?,
            delivery: DeliveryId::from_u128(self.delivery)
                .ok_or_else(|| Undecodable("an event of no delivery".to_owned()))?,
            reference: self.reference.map(str::to_owned),
            state: state_from(self.state)?,
            reason: self.reason.map(reason_from).transpose()?,
            provider: self.provider.map(str::to_owned),
            address: self.address.map(owned),
            metadata: self.metadata.into_iter().map(owned).collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredAction<'a> {
    at: u64,
    who: &'a str,
    what: &'a str,
    why: Option<&'a str>,
}

impl<'a> From<&'a Action> for StoredAction<'a> {
    fn from(action: &'a Action) -> Self {
        let Action { at, who, what, why } = action;
        Self { at: at.ms(), who, what, why: why.as_deref() }
    }
}

impl StoredAction<'_> {
    pub(super) fn into_action(self) -> Action {
        Action {
            at: Utc::from_ms(self.at),
            who: self.who.into(),
            what: self.what.to_owned(),
            why: self.why.map(str::to_owned),
        }
    }
}
