//! What a subscriber with `?scheduled=1` sees before its time: messages with a
//! `deliver_at`, as they will be when they are sent, with that time and the id
//! that they will have then.
//!
//! The hub has hints; the store says what has become of them. So a message that
//! was taken back, erased or sent another way is not shown, and neither is one
//! whose route has no stream provider. Blocks: it reads from disk.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pushyard_providers::stream::{Coming, Hub, KIND, Message};

use crate::feedback::Receipts;
use crate::model::{self, DeliveryId};
use crate::routing::{Catalog, Serves};
use crate::store::{Store, StoreError};

/// Of one topic; each is a read from the store.
const MOST: usize = 100;

/// Where it is looked up.
#[derive(Clone)]
pub struct Schedule {
    /// What is stored.
    pub store: Arc<dyn Store>,
    /// Providers and routes.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Makes the string that each payload carries.
    pub receipts: Arc<Receipts>,
}

impl Schedule {
    /// What is to come of these topics, soonest first.
    pub(super) fn of(&self, hub: &Hub, topics: &[Box<str>]) -> Result<Vec<Message>, StoreError> {
        let mut found = Vec::new();
        for topic in topics {
            for (at, delivery) in hub.upcoming(topic, MOST) {
                let Some(delivery) = DeliveryId::from_u128(delivery) else { continue };
                found.extend(self.one(hub, topic, at, delivery)?);
            }
        }
        found.sort_by_key(|message| message.time);
        Ok(found)
    }

    fn one(
        &self,
        hub: &Hub,
        topic: &str,
        at: u64,
        delivery: DeliveryId,
    ) -> Result<Option<Message>, StoreError> {
        let Some(message) = self.store.message(delivery.message())? else { return Ok(None) };
        let records = self.store.progress(delivery.message())?;
        let ended =
            |(n, progress): &(u16, model::Progress)| *n == delivery.n() && progress.state.settled();
        if records.iter().any(ended) || !self.is_for(&message, delivery, topic) {
            return Ok(None);
        }
        let pushyard = self.receipts.string(delivery);
        let coming =
            Coming { delivery: delivery.uuid(), topic, pushyard: &pushyard, at, life: message.ttl };
        // What a vendor cannot take was told when it was accepted.
        Ok(hub.preview(&message.push, &coming).ok())
    }

    /// Whether a stream provider of its route serves it by this topic. It does not when
    /// its recipient was erased.
    fn is_for(&self, message: &model::Message, delivery: DeliveryId, topic: &str) -> bool {
        let catalog = self.catalog.load();
        let Some(recipient) = message.recipients.get(usize::from(delivery.n())) else {
            return false;
        };
        let Some(route) = catalog.route(&message.route) else { return false };
        let streams = || {
            let members = route.tiers.iter().flatten().map(|member| member.provider);
            members.filter(|index| catalog.provider(*index).settings.kind == KIND.name)
        };
        recipient.addresses.iter().any(|address| {
            address.get("topic") == Some(topic)
                && streams()
                    .any(|index| matches!(catalog.serves(index, recipient, address), Serves::Yes))
        })
    }
}
