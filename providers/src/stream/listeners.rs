//! Who listens to which topic, within bounds: overall, for each address and for
//! each topic.
//!
//! Handing a message out never waits. A subscriber has a queue of [`QUEUE`]
//! messages; one whose queue is full leaves all its topics, reads what its queue
//! still has, and comes back with `since=`. Its place is taken until it is gone:
//! bounds count what is held, and a peer that does not read still holds something.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::hub::HubSettings;
use super::message::Message;

/// Messages that wait for a subscriber. An hour of a busy topic, or a second of a
/// flood: more, and it reads the backlog instead.
pub const QUEUE: usize = 256;

const LOCK: &str = "no code panics while it holds this lock";

/// Why nobody more may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `max_subscribers`.
    Subscribers,
    /// `max_subscribers_per_address`.
    AddressSubscribers,
    /// `max_subscribers_per_topic`.
    TopicSubscribers,
    /// `max_topics_per_address`.
    AddressTopics,
    /// `max_topics`.
    Topics,
    /// The hub is closed.
    Closed,
}

/// Whose connections are counted together: an IPv6 /64 is one customer.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Default)]
pub(super) struct Shared {
    listeners: Mutex<Listeners>,
    /// Of messages that are alive in queues.
    pub(super) bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Listeners {
    next: u64,
    count: usize,
    topics: HashMap<Box<str>, HashMap<u64, Listener>>,
    addresses: HashMap<IpAddr, OfAddress>,
    pub(super) dropped: u64,
}

struct Listener {
    queue: Sender<Arc<Message>>,
    /// All its topics, so that it leaves them without a search.
    topics: Arc<[Box<str>]>,
}

/// What one address holds.
#[derive(Default)]
struct OfAddress {
    places: usize,
    /// How many subscriptions to each topic.
    topics: HashMap<Box<str>, u32>,
}

/// A place among those who read, until it is dropped.
pub struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// A place among the live subscribers, until it is dropped.
pub struct Subscription {
    place: Place,
    number: u64,
    topics: Arc<[Box<str>]>,
    queue: Receiver<Arc<Message>>,
}

impl Shared {
    pub(super) fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().expect(LOCK)
    }

    /// A place for who reads the backlog alone.
    pub(super) fn place(
        self: &Arc<Self>,
        settings: &HubSettings,
        address: IpAddr,
    ) -> Result<Place, Full> {
        let address = network(address);
        self.listeners().take_place(settings, address)?;
        Ok(Place { shared: Arc::clone(self), address })
    }

    /// A place for who listens to these topics.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        settings: &HubSettings,
        topics: Arc<[Box<str>]>,
        address: IpAddr,
    ) -> Result<Subscription, Full> {
        let address = network(address);
        let (sender, queue) = channel(QUEUE);
        let mut listeners = self.listeners();
        listeners.has_room(settings, &topics, address)?;
        listeners.take_place(settings, address)?;
        let number = listeners.join(&topics, address, &sender);
        drop(listeners);
        let place = Place { shared: Arc::clone(self), address };
        Ok(Subscription { place, number, topics, queue })
    }
}

impl Listeners {
    /// How many read or listen now.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many topics somebody listens to.
    pub(super) fn topics(&self) -> usize {
        self.topics.len()
    }

    fn take_place(&mut self, settings: &HubSettings, address: IpAddr) -> Result<(), Full> {
        let held = self.addresses.get(&address).map_or(0, |known| known.places);
        if self.count >= settings.max_subscribers {
            return Err(Full::Subscribers);
        }
        if held >= settings.max_subscribers_per_address {
            return Err(Full::AddressSubscribers);
        }
        self.count += 1;
        self.addresses.entry(address).or_default().places += 1;
        Ok(())
    }

    fn has_room(
        &self,
        settings: &HubSettings,
        topics: &[Box<str>],
        address: IpAddr,
    ) -> Result<(), Full> {
        let known = self.addresses.get(&address);
        let new_here = |topic: &str| known.is_none_or(|of| !of.topics.contains_key(topic));
        let new = topics.iter().filter(|topic| new_here(topic)).count();
        let here = known.map_or(0, |of| of.topics.len()) + new;
        if here > settings.max_topics_per_address {
            return Err(Full::AddressTopics);
        }
        let new = topics.iter().filter(|topic| !self.topics.contains_key(*topic)).count();
        if self.topics.len() + new > settings.max_topics {
            return Err(Full::Topics);
        }
        let crowded = |topic: &str| {
            let held = self.topics.get(topic).map_or(0, HashMap::len);
            held >= settings.max_subscribers_per_topic
        };
        if topics.iter().any(|topic| crowded(topic)) { Err(Full::TopicSubscribers) } else { Ok(()) }
    }

    fn join(
        &mut self,
        topics: &Arc<[Box<str>]>,
        address: IpAddr,
        queue: &Sender<Arc<Message>>,
    ) -> u64 {
        self.next += 1;
        let number = self.next;
        for topic in topics.iter() {
            let listener = Listener { queue: queue.clone(), topics: Arc::clone(topics) };
            self.topics.entry(topic.clone()).or_default().insert(number, listener);
            let of_address = self.addresses.entry(address).or_default();
            *of_address.topics.entry(topic.clone()).or_default() += 1;
        }
        number
    }

    /// Hands a message to all who listen; how many there were. `tight`: only to
    /// those who have read everything before.
    pub(super) fn fan_out(&mut self, message: &Arc<Message>, tight: bool) -> usize {
        let Some(of_topic) = self.topics.get(&message.topic) else { return 0 };
        let mut slow = Vec::new();
        let mut handed = 0;
        for (number, Listener { queue, topics }) in of_topic {
            let behind = tight && queue.capacity() < QUEUE;
            if !behind && queue.try_send(Arc::clone(message)).is_ok() {
                handed += 1;
            } else {
                slow.push((*number, Arc::clone(topics)));
            }
        }
        for (number, topics) in slow {
            self.dropped += 1;
            // Without a sender its queue ends.
            self.leave(&topics, number);
        }
        handed
    }

    fn leave(&mut self, topics: &[Box<str>], number: u64) {
        for topic in topics {
            let Some(of_topic) = self.topics.get_mut(topic) else { continue };
            of_topic.remove(&number);
            if of_topic.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

impl Subscription {
    /// The next live message; `None`: dropped for being slow.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        self.queue.recv().await
    }

    /// Its topics.
    pub fn topics(&self) -> &Arc<[Box<str>]> {
        &self.topics
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut listeners = self.place.shared.listeners();
        listeners.leave(&self.topics, self.number);
        let Some(of_address) = listeners.addresses.get_mut(&self.place.address) else { return };
        for topic in self.topics.iter() {
            let Some(many) = of_address.topics.get_mut(topic) else { continue };
            *many -= 1;
            if *many == 0 {
                of_address.topics.remove(topic);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut listeners = self.shared.listeners();
        listeners.count -= 1;
        let Some(of_address) = listeners.addresses.get_mut(&self.address) else { return };
        of_address.places -= 1;
        if of_address.places == 0 {
            listeners.addresses.remove(&self.address);
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A topic may be a secret.
        write!(f, "Subscription({} topics)", self.topics.len())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}
