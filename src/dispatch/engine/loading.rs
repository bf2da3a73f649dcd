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

    /// A delivery waits for its message's body. Whether that is to be read.
    pub(super) fn add(
        &mut self,
        id: MessageId,
        at: StubRef,
        drawn_at: Option<ProviderIndex>,
    ) -> bool {
        if let Some(provider) = drawn_at {
            self.drawn[provider.at()] += 1;
        }
        // All may have left while it is being read; it is not read twice.
        let unread = !self.waiting.contains_key(&id);
        self.waiting.entry(id).or_default().push((at, drawn_at));
        unread
    }

    /// A delivery waits no more; its message is still being read. Returns the provider
    /// that has room for another one.
    pub(super) fn remove(&mut self, id: MessageId, at: StubRef) -> Option<ProviderIndex> {
        let waiting = self.waiting.get_mut(&id)?;
        let found = waiting.iter().position(|(other, _)| *other == at)?;
        let (_, drawn_at) = waiting.swap_remove(found);
        self.drawn[drawn_at?.at()] -= 1;
        drawn_at
    }

    /// A message was read: those that waited for it, and at whose turn they were drawn.
    pub(super) fn take(&mut self, id: MessageId) -> Vec<(StubRef, Option<ProviderIndex>)> {
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        for provider in waiting.iter().filter_map(|(_, drawn_at)| *drawn_at) {
            self.drawn[provider.at()] -= 1;
        }
        waiting
    }
}
