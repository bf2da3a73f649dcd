//! One subscription from its first byte to its last: `open`, what the backlog
//! has, what is scheduled where it asks for that, then what comes.
//!
//! The subscriber is registered before the backlog is read, so nothing is lost
//! between the two; what comes from both is known by its row and told once.
//! Reading from the backlog blocks, so few do it at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pushyard_providers::stream::{Form, Hub, Message, Place, Subscription, event};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::StreamState;
use super::question::{Question, Since};
use super::upcoming::Schedule;

/// See the module.
pub(super) struct Session {
    hub: Arc<Hub>,
    schedule: Option<Schedule>,
    /// Turns at the backlog.
    readers: Arc<Semaphore>,
    topics: Arc<[Box<str>]>,
    seat: Seat,
    question: Question,
    form: Form,
    phase: Phase,
    /// Everything up to this row has been told.
    told: u64,
    pending: VecDeque<Message>,
    keepalive: Duration,
    closed: CancellationToken,
}

/// What a session holds as long as it lives.
pub(super) enum Seat {
    /// It stays and listens.
    Live(Subscription),
    /// It asks for the backlog alone.
    Poll { _place: Place },
}

#[derive(Clone, Copy)]
enum Phase {
    Open,
    Begin,
    Backlog,
    Upcoming,
    Live,
}

impl Session {
    pub(super) fn new(
        state: &StreamState,
        topics: Arc<[Box<str>]>,
        seat: Seat,
        question: Question,
        form: Form,
    ) -> Self {
        let phase = match &seat {
            Seat::Live(_) => Phase::Open,
            Seat::Poll { .. } => Phase::Begin,
        };
        Self {
            hub: Arc::clone(&state.hub),
            schedule: state.schedule.clone(),
            readers: Arc::clone(&state.readers),
            topics,
            seat,
            question,
            form,
            phase,
            told: 0,
            pending: VecDeque::new(),
            keepalive: state.keepalive,
            closed: state.closed.clone(),
        }
    }

    /// What goes out next; `None`: the end. Giving the future up loses nothing.
    ///
    /// # Errors
    /// When the backlog cannot be read: the connection is to break, so that it is
    /// not mistaken for the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                if self.wants(&message) {
                    return Ok(Some(message.bytes(self.form)));
                }
                continue;
            }
            match self.phase {
                Phase::Open => {
                    self.phase = Phase::Begin;
                    return Ok(Some(self.event("open")));
                }
                Phase::Begin => self.begin().await?,
                Phase::Backlog => self.read_on().await?,
                Phase::Upcoming => self.look_ahead().await?,
                Phase::Live => return Ok(self.listen().await),
            }
        }
    }

    async fn begin(&mut self) -> io::Result<()> {
        self.phase = match &self.question.since {
            Since::None => Phase::Live,
            Since::All | Since::Time(_) | Since::Ago(_) => Phase::Backlog,
            Since::Id(id) => {
                let id = id.clone();
                self.told = self.reading(move |hub, _| hub.row_of(&id)).await?.unwrap_or(0);
                Phase::Backlog
            }
            Since::Latest => {
                self.pending = self.reading(|hub, topics| hub.latest(topics)).await?.into();
                self.told = self.pending.back().map_or(0, |message| message.row);
                Phase::Live
            }
        };
        Ok(())
    }

    async fn read_on(&mut self) -> io::Result<()> {
        let from = self.told;
        let (found, last) = self.reading(move |hub, topics| hub.after(topics, from)).await?;
        match last {
            Some(last) => self.told = last,
            None => self.phase = Phase::Upcoming,
        }
        self.pending = found.into();
        Ok(())
    }

    /// ntfy's server has what is scheduled in its backlog and so shows it with that:
    /// not to who wants nothing of the backlog or the latest alone.
    async fn look_ahead(&mut self) -> io::Result<()> {
        if let Some(schedule) = self.schedule.clone().filter(|_| self.question.scheduled) {
            let look = move |hub: &Hub, topics: &[Box<str>]| {
                schedule.of(hub, topics).map_err(|error| error.to_string())
            };
            self.pending = self.reading(look).await?.into();
        }
        self.phase = Phase::Live;
        Ok(())
    }

    async fn reading<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Hub, &[Box<str>]) -> Result<T, String> + Send + 'static,
    ) -> io::Result<T> {
        let (hub, topics) = (Arc::clone(&self.hub), Arc::clone(&self.topics));
        // Closed only by its owner, who is never done with it.
        let _turn = self.readers.acquire().await.map_err(io::Error::other)?;
        let read = tokio::task::spawn_blocking(move || read(&hub, &topics)).await;
        read.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn listen(&mut self) -> Option<Bytes> {
        let (told, form) = (self.told, self.form);
        let silence = tokio::time::sleep(self.keepalive);
        let mut silence = std::pin::pin!(silence);
        loop {
            let live = match &mut self.seat {
                Seat::Live(live) => live,
                Seat::Poll { .. } => return None,
            };
            tokio::select! {
                message = live.next() => {
                    let message = message?;
                    if message.row > told && self.wants(&message) {
                        return Some(message.bytes(form));
                    }
                }
                // A WebSocket has its own sign of life.
                () = &mut silence, if form != Form::Ws => return Some(self.event("keepalive")),
                () = self.closed.cancelled() => return None,
            }
        }
    }

    fn wants(&self, message: &Message) -> bool {
        let recent = match self.question.since {
            Since::Time(time) => message.time >= time,
            Since::Ago(ago) => message.time >= self.hub.now().saturating_sub(ago),
            Since::None | Since::All | Since::Latest | Since::Id(_) => true,
        };
        recent && self.question.wants(message)
    }

    fn event(&self, name: &str) -> Bytes {
        event(name, &self.topics.join(","), self.hub.now(), self.form)
    }
}
