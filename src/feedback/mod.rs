//! After the outcome: the string that every payload carries and the receipt that
//! proves it, the events that clients are told by signed webhooks (`outbox`), and
//! those that operators are (`operators`).

mod operators;
mod outbox;
mod receipt;
mod target;

pub use operators::{OperatorTarget, run as tell_operators};
pub use outbox::{OutboxParts, Subscriber, run as tell_clients};
pub use receipt::Receipts;
pub use target::{BadTarget, Target, http_client};
