//! Settled deliveries that come back: a device says that it has one (T6 of
//! docs/semantics.md), or an operator wants one tried again (T12).
//!
//! The engine has forgotten a settled delivery as soon as its record was on disk,
//! so the record is asked for first. Questions about one delivery wait for the
//! same look and are answered in their order: two replays asked for at once make
//! one.

use std::sync::Arc;

use super::super::deliveries::{Place, StubRef, Track};
use super::super::fair::End;
use super::super::{Received, Replayed};
use super::{AfterFlush, Effect, Engine, Fact, Token};
use crate::clock::Now;
use crate::model::{Body, DeliveryId, Progress, Reason, State};
use crate::store::Record;

/// What someone wants of a delivery.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inquiry {
    /// The device has it.
    Receipt(Token),
    /// It is to be tried again.
    Replay(Token),
}

/// What the store holds of a delivery.
#[derive(Debug)]
pub struct Found {
    /// Its message.
    pub body: Arc<Body>,
    /// Its record; none while it is queued, and for one that was born failed.
    pub progress: Option<Progress>,
}

impl Engine {
    pub(super) fn inquire(
        &mut self,
        id: DeliveryId,
        inquiry: Inquiry,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match self.deliveries.find_delivery(id) {
            // Its record is on its way to the disk; then it can be read.
            Some(at) if self.deliveries.stubs[at].place == Place::Settled => {
                self.unflushed.push_back((self.written, AfterFlush::Inquire(id, inquiry)));
            }
            Some(at) => match inquiry {
                Inquiry::Receipt(token) => self.received_live(at, token, now, effects),
                Inquiry::Replay(token) => {
                    effects.push(Effect::Replayed(token, Replayed::NotDead));
                }
            },
            None => {
                let waiting = self.inquiries.entry(id).or_default();
                waiting.push(inquiry);
                if waiting.len() > 1 {
                    return;
                }
                // What was written last of it may be on its way to the disk: nobody
                // has waited for that if the message was for memory only.
                if self.flushed == self.written {
                    effects.push(Effect::Look(id));
                } else {
                    self.unflushed.push_back((self.written, AfterFlush::Look(id)));
                }
            }
        }
    }

    /// What the store holds of a delivery is known.
    pub(super) fn found(
        &mut self,
        id: DeliveryId,
        found: Option<Box<Found>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let mut found = found.map(|found| *found);
        let mut replayed_once = false;
        for inquiry in self.inquiries.remove(&id).unwrap_or_default() {
            if replayed_once || self.deliveries.find_delivery(id).is_some() {
                // The one before has brought it back, and it may have ended at once.
                self.inquire(id, inquiry, now, effects);
                continue;
            }
            match inquiry {
                Inquiry::Receipt(token) => {
                    self.received(id, &mut found, token, now, effects);
                }
                Inquiry::Replay(token) => {
                    let replayed = self.replay(id, found.as_ref(), token, now, effects);
                    replayed_once |= replayed.is_none();
                    effects.extend(replayed.map(|answer| Effect::Replayed(token, answer)));
                }
            }
        }
    }

    /// The device has a delivery that is not settled: nothing more is sent.
    fn received_live(&mut self, at: StubRef, token: Token, now: Now, effects: &mut Vec<Effect>) {
        if self.deliveries.stubs[at].place == Place::Flight {
            // Its attempt goes on and settles it; a crash before must not resend it.
            let track = self.track(at);
            track.delivered = true;
            let progress = delivered(track.progress.clone(), now);
            let id = self.deliveries.message_of(at).id.delivery(self.deliveries.stubs[at].n);
            let (client, progress) = (self.deliveries.message_of(at).client, Arc::new(progress));
            self.write(Record::Progress(id, progress.clone()), effects);
            self.announce(client, id, &progress, now, effects);
        } else {
            self.settle(at, State::Delivered, None, now, effects);
        }
        self.unflushed.push_back((self.written, AfterFlush::Received(token, None)));
    }

    fn received(
        &mut self,
        id: DeliveryId,
        found: &mut Option<Found>,
        token: Token,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Found { body, progress: Some(progress) }) = found else {
            effects.push(Effect::Received(token, Received::Unknown));
            return;
        };
        if progress.state == State::Delivered {
            // Another word of the same device may be on its way to the disk.
            self.unflushed.push_back((self.written, AfterFlush::Received(token, None)));
            if self.flushed == self.written {
                self.flushed(self.written, now, effects);
            }
            return;
        }
        *progress = delivered(progress.clone(), now);
        let message = body.message();
        let upto = self.write(Record::Progress(id, Arc::new(progress.clone())), effects);
        let client = self.client(&message.client);
        self.announce(client, id, progress, now, effects);
        let fact = Fact::Settled {
            delivery: id,
            route: message.route.clone(),
            state: State::Delivered,
            reason: None,
            took: now.utc.since(message.not_before()),
        };
        self.unflushed.push_back((upto, AfterFlush::Received(token, Some(Box::new(fact)))));
    }

    /// Brings a dead delivery back. The answer, unless it comes with the flush.
    fn replay(
        &mut self,
        id: DeliveryId,
        found: Option<&Found>,
        token: Token,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Replayed> {
        let Some(Found { body, progress }) = found else { return Some(Replayed::Unknown) };
        let message = body.message();
        let Some(recipient) = message.recipients.get(usize::from(id.n())) else {
            return Some(Replayed::Unknown);
        };
        let dead = progress.as_ref().map_or(recipient.no_route, |progress| {
            matches!(progress.state, State::Failed | State::Expired | State::Unknown)
        });
        if !dead {
            return Some(Replayed::NotDead);
        }
        let client = self.client(&message.client);
        if let Err(rejected) = self.admit(1, self.clients[client.0 as usize].unsettled, now) {
            return Some(Replayed::Rejected(rejected));
        }
        self.clients[client.0 as usize].unsettled += 1;
        let entry = self.deliveries.find(message.id).unwrap_or_else(|| {
            let entry = self.deliveries.add_message(message, client);
            self.keep_body(entry, body);
            entry
        });
        let known = progress.clone();
        let revived = revived(known.unwrap_or_else(|| Progress::queued(now.utc)), now);
        let track = Some(Box::new(Track::new(revived)));
        let at = self.add(entry, id.n(), body, recipient, track, now, effects);
        self.deliveries.note_replay(at, true);
        self.write_progress(at, now, effects);
        // Its addresses may be gone since: then it ends as it did before.
        if let Some((state, reason)) = self.unreachable(at, recipient, now) {
            self.settle(at, state, Some(reason), now, effects);
        }
        // Not called before it is known on disk that it may be.
        self.unflushed.push_back((self.written, AfterFlush::Replayed(token, id)));
        None
    }

    /// A replay is on disk.
    pub(super) fn replayed(
        &mut self,
        token: Token,
        id: DeliveryId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Replayed(token, Replayed::Queued));
        // It may have been cancelled meanwhile, or the device has said that it has it.
        if let Some(at) = self.deliveries.find_delivery(id)
            && self.deliveries.stubs[at].place == Place::Nowhere
        {
            self.enter(at, End::Back, now);
        }
    }
}

fn delivered(mut progress: Progress, now: Now) -> Progress {
    (progress.state, progress.reason, progress.next_at) = (State::Delivered, None, None);
    progress.at = now.utc;
    progress
}

/// A new life: what was tried is history and counts no more.
fn revived(progress: Progress, now: Now) -> Progress {
    Progress {
        state: State::Waiting,
        reason: None::<Reason>,
        next_at: Some(now.utc),
        counted: 0,
        rounds: 0,
        ambiguous: 0,
        crashes: 0,
        alone: 0,
        excluded: Vec::new(),
        replayed_at: Some(now.utc),
        ..progress
    }
}
