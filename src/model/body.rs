//! A message in memory, with the vendor payloads that have been built of it.
//!
//! Each provider encodes a message once; the recipients share the result. Intake
//! encodes to see whether the message fits, dispatch uses what is there.

use std::sync::{Arc, Mutex};

use pushyard_providers::{Invalid, Payload, Provider};
use smallvec::SmallVec;

use super::Message;

/// A payload, or why that provider cannot take the message.
pub type Encoded = Result<Arc<Payload>, Invalid>;

/// A message and its payloads.
#[derive(Debug)]
pub struct Body {
    message: Message,
    /// By the serial number of the built provider; there are a handful.
    encoded: Mutex<SmallVec<[(u64, Encoded); 2]>>,
}

impl Body {
    /// Of a message that nothing has been built of.
    pub fn new(message: Message) -> Arc<Self> {
        Self::encoded(message, SmallVec::new())
    }

    /// Of a message whose payloads have been built already, each under the serial
    /// number of its built provider.
    pub fn encoded(message: Message, payloads: SmallVec<[(u64, Encoded); 2]>) -> Arc<Self> {
        Arc::new(Self { message, encoded: Mutex::new(payloads) })
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The payload of the provider that was built as number `serial`.
    ///
    /// # Errors
    /// [`Invalid`] when that provider cannot take the message.
    pub fn payload(&self, serial: u64, provider: &dyn Provider) -> Encoded {
        let mut encoded = self.encoded.lock().expect("adapters' encode does not panic");
        if let Some((_, known)) = encoded.iter().find(|(number, _)| *number == serial) {
            return known.clone();
        }
        let payload = provider.encode(&self.message.push).map(Arc::new);
        encoded.push((serial, payload.clone()));
        payload
    }
}
