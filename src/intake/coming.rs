//! What is scheduled, told to the stream's hub: devices that ask for it see it before
//! its time.
//!
//! Told when a message has been accepted, and again for what a start finds in the
//! store. Nothing is told of what becomes of it: who reads looks that up.

use pushyard_providers::stream::{Hub, KIND};

use crate::model::Message;

/// Notes each stream address of a message with a `deliver_at`.
pub fn expect(hub: &Hub, message: &Message) {
    let at = message.not_before().ms() / 1000;
    for (delivery, address) in message.scheduled(KIND.name) {
        if let Some(topic) = address.get("topic") {
            hub.expect(topic, at, delivery.as_u128());
        }
    }
}
