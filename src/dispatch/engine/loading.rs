//! Deliveries whose bodies are being read back.

use hashbrown::HashMap;

use super::super::deliveries::StubRef;
use crate::model::MessageId;
use crate::routing::ProviderIndex;

/// Bodies being read back at once.
const MOST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Loading {
    /// By message: which deliveries, and at whose turn each was drawn, if at anyone's.
    waiting: HashMap<MessageId, Vec<(StubRef, Option<ProviderIndex>)>>,
    /// By provider: deliveries drawn at its turn.
    drawn: Vec<usize>,
}

impl Loading {
    pub(super) fn new(providers: usize) -> Self {
        Self { waiting: HashMap::new(), drawn: vec![0; providers] }
    }

    /// Providers have come.
    pub(super) fn grow(&mut self, providers: usize) {
        self.drawn.resize(providers, 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// No more bodies may be read back at once.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    /// Deliveries drawn at a provider's turn.
    pub(super) fn drawn_at(&self, provider: ProviderIndex) -> usize {
        self.drawn[provider.at()]
    }

    /// A delivery waits for its message's body. Whether it is the first of it.
    pub(super) fn add(
        &mut self,
        id: MessageId,
        at: StubRef,
        drawn_at: Option<ProviderIndex>,
    ) -> bool {
        if let Some(provider) = drawn_at {
            self.drawn[provider.at()] += 1;
        }
        let waiting = self.waiting.entry(id).or_default();
        waiting.push((at, drawn_at));
        waiting.len() == 1
    }

    /// A delivery waits no more; its message may still be read.
    pub(super) fn remove(&mut self, id: MessageId, at: StubRef) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        if let Some(found) = waiting.iter().position(|(other, _)| *other == at) {
            let (_, drawn_at) = waiting.swap_remove(found);
            self.returned(drawn_at);
        }
    }

    /// A message was read: those that waited for it.
    pub(super) fn take(&mut self, id: MessageId) -> Vec<StubRef> {
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        waiting
            .into_iter()
            .map(|(at, drawn_at)| {
                self.returned(drawn_at);
                at
            })
            .collect()
    }

    fn returned(&mut self, drawn_at: Option<ProviderIndex>) {
        if let Some(provider) = drawn_at {
            self.drawn[provider.at()] -= 1;
        }
    }
}
