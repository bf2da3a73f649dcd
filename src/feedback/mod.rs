//! After the outcome: the string that every payload carries and the receipt that
//! proves it, the events that clients are told by signed webhooks (`outbox`), and
//! those that operators are (`operators`). Beside it the names that addresses have
//! where they must not be shown (`name`): they hang on the same key.

mod name;
mod operators;
mod outbox;
mod receipt;
mod target;

pub use name::AddressNames;
pub use operators::{OperatorTarget, run as tell_operators};
pub use outbox::{OutboxParts, Subscriber, run as tell_clients};
pub use receipt::Receipts;
pub use target::{BadTarget, Target, http_client};
