//! The records that the rooms hand to each other: ids, messages, deliveries.
//! Plain values; what they mean is decided in `dispatch` and `routing`.

mod body;
mod delivery;
mod device;
mod event;
mod gone;
mod id;
mod message;
mod trace;

pub use body::{Body, Encoded};
pub use delivery::{Attempt, Excluded, PassedOver, Progress, Reason, State, message_state};
pub use device::{Device, MAX_DEVICES, User};
pub use event::{DeliveryEvent, EventId, EventKind, EventKinds};
pub use gone::{Gone, Proof, gone_key};
pub use id::{DeliveryId, IdGenerator, MAX_DELIVERIES, MessageId};
pub use message::{Durability, Idempotency, Message, OnAmbiguous, Recipient, Unresolved, Warning};
pub use trace::{Trace, TraceId};
