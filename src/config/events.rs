//! Where events are posted to: `events` of a client and of `[admin]`.

use std::collections::BTreeSet;

use super::check::Check;
use super::file::{Client, Events};
use super::value::{At, Field, nearest};
use crate::feedback::{BadTarget, OperatorTarget, Subscriber, Target};
use crate::model::{EventKind, EventKinds};
use crate::telemetry::HUB_EVENTS;

impl Check<'_> {
    /// The clients that are told of their deliveries.
    pub(super) fn subscribers(&self, clients: &[Client]) -> Vec<Subscriber> {
        let subscriber = |client: &Client| {
            let events = client.events.as_ref()?;
            let words = self.types(&events.types, &EventKind::WORDS);
            let kinds = match &events.types {
                Field::Absent => EventKinds::ALL,
                Field::Wrong | Field::Is(_) => {
                    words.into_iter().filter_map(EventKind::of_word).collect()
                }
            };
            let target = self.target(events);
            let client = client.name.get()?.value.as_str().into();
            Some(Subscriber { client, target: target?, kinds })
        };
        clients.iter().filter_map(subscriber).collect()
    }

    /// Where operators are told what happens.
    pub(super) fn operators(&self, events: &Events) -> Option<OperatorTarget> {
        let types = self.types(&events.types, &HUB_EVENTS);
        Some(OperatorTarget { target: self.target(events)?, types })
    }

    fn target(&self, events: &Events) -> Option<Target> {
        let url = self.required(&events.url, &events.spot, "url").cloned();
        let secret = self.required(&events.secret, &events.spot, "secret").cloned();
        let (url, secret) = (url?, secret?);
        let At { value, spot } = secret;
        let secret = self.secret(value, &spot)?;
        match Target::new(&url.value, secret, events.insecure_http) {
            Ok(target) => Some(target),
            Err(BadTarget::Url(detail)) => {
                self.faults.add(&url.spot, detail);
                None
            }
            Err(BadTarget::Secret(detail)) => {
                self.faults.add(&spot, detail);
                None
            }
        }
    }

    /// The words that are known, each once; every other is a fault.
    fn types(&self, written: &Field<Vec<At<String>>>, known: &[&'static str]) -> Vec<&'static str> {
        let Some(list) = written.get() else { return Vec::new() };
        if list.value.is_empty() {
            self.faults.add(&list.spot, "names no event; name one, or remove the key to get all");
        }
        let mut types = BTreeSet::new();
        for At { value, spot } in &list.value {
            match known.iter().find(|word| **word == value.as_str()) {
                Some(word) => {
                    types.insert(*word);
                }
                None => {
                    let near = nearest(value, known.iter().copied());
                    self.faults.add(spot, format!("no event is called {value:?}{near}"));
                }
            }
        }
        types.into_iter().collect()
    }
}
