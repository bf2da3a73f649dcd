//! The operators' events: what the log says at `info` and above, for programs and
//! consoles. The last thousand are held, so that whoever was away for a moment
//! can catch up; nobody is waited for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::Utc;

/// Events that are held.
const HELD: usize = 1000;

/// The names that events have.
pub const HUB_EVENTS: [&str; 6] =
    ["provider.state", "failover", "reload", "operator", "route.override", "alarm"];

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubEvent {
    /// Rises; also over restarts, because it begins with the time.
    pub id: u64,
    /// One of [`HUB_EVENTS`].
    pub name: &'static str,
    /// When.
    pub at: Utc,
    /// The provider that it is about.
    pub provider: Option<Arc<str>>,
    /// The part of it; empty: the whole.
    pub part: Option<String>,
    /// The state, or provider, before.
    pub from: Option<String>,
    /// The state, or provider, after; of an action, what was done.
    pub to: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The route that it is about.
    pub route: Option<Arc<str>>,
    /// How often.
    pub count: Option<u64>,
    /// Who did it.
    pub by: Option<Arc<str>>,
}

impl HubEvent {
    /// The event's `data`.
    pub fn data(&self) -> Value {
        json!({
            "at": self.at.rfc3339(),
            "provider": self.provider,
            "part": self.part,
            "from": self.from,
            "to": self.to,
            "reason": self.reason,
            "route": self.route,
            "count": self.count,
            "by": self.by,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    held: Mutex<VecDeque<Arc<HubEvent>>>,
    /// The id of the latest.
    latest: watch::Sender<u64>,
}

impl Hub {
    /// With nothing in it; ids are above this moment's milliseconds.
    pub(super) fn new(now: Utc) -> Self {
        Self { held: Mutex::default(), latest: watch::channel(now.ms()).0 }
    }

    /// Takes an event in and gives it its id.
    pub(super) fn publish(&self, mut event: HubEvent) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        event.id = *self.latest.borrow() + 1;
        if held.len() == HELD {
            held.pop_front();
        }
        let id = event.id;
        held.push_back(Arc::new(event));
        drop(held);
        self.latest.send_replace(id);
    }

    /// The id of the latest event: what comes is above it.
    pub fn now(&self) -> u64 {
        *self.latest.borrow()
    }

    /// The first event that is held and above this id; waits for one.
    pub async fn after(&self, id: u64) -> Arc<HubEvent> {
        let mut latest = self.latest.subscribe();
        loop {
            latest.borrow_and_update();
            if let Some(next) = self.held_after(id) {
                return next;
            }
            if latest.changed().await.is_err() {
                // The sender is ours and lives as long as we do.
                std::future::pending::<()>().await;
            }
        }
    }

    fn held_after(&self, id: u64) -> Option<Arc<HubEvent>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let at = held.partition_point(|event| event.id <= id);
        held.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_was_away_gets_the_last_thousand_in_order() {
        let hub = Hub::new(Utc::from_ms(1000));
        for n in 0..1500_u64 {
            hub.publish(HubEvent { name: "failover", count: Some(n), ..HubEvent::default() });
        }
        let (mut seen, mut counts) = (0, Vec::new());
        while seen < hub.now() {
            let next = hub.after(seen).await;
            assert!(next.id > seen);
            seen = next.id;
            counts.extend(next.count);
        }
        assert_eq!(counts, (500..1500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let hub = Arc::new(Hub::new(Utc::from_ms(1000)));
        let (watcher, now) = (hub.clone(), hub.now());
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(async move { watcher.after(now).await });
        tokio::task::yield_now().await;
        hub.publish(HubEvent { name: "alarm", ..HubEvent::default() });
        assert_eq!(waiting.join_next().await.unwrap().unwrap().name, "alarm");
    }
}
