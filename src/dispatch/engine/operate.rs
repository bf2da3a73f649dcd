//! Orders of operators: drains, pauses and overrides. Each is in force at once,
//! is answered when it is on disk, and is found again at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::super::fair::End;
use super::super::{Operation, Refused, Wish};
use super::{AfterFlush, AttemptId, Cut, Effect, Engine, Place, Token};
use crate::clock::{Now, Utc};
use crate::routing::{Catalog, Hold, OverrideSpec, Overrides, ProviderIndex, Route};
use crate::store::Record;

/// What is in force beside the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    pub(super) paused_routes: BTreeSet<Arc<str>>,
    pub(super) paused_clients: BTreeSet<Arc<str>>,
    pub(super) overrides: Overrides,
    /// The routes as configured.
    pub(super) routes: Vec<Route>,
}

impl Orders {
    fn ends_at(&self) -> Option<Utc> {
        self.overrides.values().filter_map(|spec| spec.until).min()
    }

    /// Whether what is of this route and client waits.
    pub(super) fn pause(&self, route: &Arc<str>, client: &Arc<str>) -> bool {
        // Sets without members answer at once.
        self.paused_routes.contains(route) || self.paused_clients.contains(client)
    }

    /// What an operator has paused of these two, in a word.
    pub(super) fn paused(&self, route: &Arc<str>, client: &Arc<str>) -> Option<&'static str> {
        let client = self.paused_clients.contains(client).then_some("client");
        self.paused_routes.contains(route).then_some("route").or(client)
    }

    /// The catalog with the overridden routes in it.
    pub(super) fn effective(&self, catalog: &Catalog) -> Catalog {
        let with = |route: &Route| {
            let spec = self.overrides.get(&route.name);
            spec.map_or_else(|| route.clone(), |spec| spec.apply(route, catalog))
        };
        Catalog {
            providers: catalog.providers.clone(),
            routes: self.routes.iter().map(with).collect(),
        }
    }
}

impl Engine {
    pub(super) fn operate(
        &mut self,
        token: Token,
        operation: Operation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let done = match operation {
            Operation::Provider { id, wish, reason, until } => {
                self.hold(&id, wish, reason, until, now, effects)
            }
            Operation::RoutePause { route, paused } => self.pause_route(&route, paused, effects),
            Operation::ClientPause { client, paused } => {
                let orders = &mut self.orders;
                set(&mut orders.paused_clients, &client, paused);
                self.note(format!("pause/client/{client}"), paused.then_some(&()), effects);
                Ok(())
            }
            Operation::RouteOverride { route, change } => {
                self.override_route(&route, change, now, effects)
            }
        };
        match done {
            Ok(()) => {
                self.gather_ready(now);
                self.dirty.fill(true);
                self.unflushed.push_back((self.written, AfterFlush::Operated(token)));
            }
            Err(refused) => effects.push(Effect::Operated(token, Err(refused))),
        }
    }

    fn hold(
        &mut self,
        id: &Arc<str>,
        wish: Wish,
        reason: Option<String>,
        until: Option<Utc>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let provider = self.catalog.by_id(id).ok_or(Refused::Unknown)?;
        let hold = match wish {
            Wish::Resume => None,
            Wish::Drain | Wish::Eject => {
                Some(Hold { ejected: wish == Wish::Eject, reason, since: now.utc, until })
            }
        };
        self.set_hold(provider, hold, now, effects);
        if wish == Wish::Eject {
            self.cut_calls(provider, effects);
        }
        Ok(())
    }

    /// The calls in flight at a provider are given up. Those whose intent is still being
    /// written are not made: a hold closes every key.
    fn cut_calls(&mut self, provider: ProviderIndex, effects: &mut Vec<Effect>) {
        let mut cut: Vec<AttemptId> = Vec::new();
        for (attempt, flight) in &mut self.flights {
            let called = flight.called.is_some() && flight.cut.is_none();
            if called && flight.candidate.provider == provider {
                flight.cut = Some(Cut::Ejected);
                cut.push(*attempt);
            }
        }
        cut.sort_unstable();
        effects.extend(cut.into_iter().map(|attempt| Effect::Cut(attempt, Cut::Ejected)));
    }

    fn set_hold(
        &mut self,
        provider: ProviderIndex,
        hold: Option<Hold>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.catalog.provider(provider).settings.id.clone();
        self.note(format!("operator/{id}"), hold.as_ref(), effects);
        self.board.hold(provider, hold, now.instant);
        self.since[provider.at()] = now.utc;
    }

    fn pause_route(
        &mut self,
        route: &Arc<str>,
        paused: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        self.catalog.route(route).ok_or(Refused::Unknown)?;
        set(&mut self.orders.paused_routes, route, paused);
        self.note(format!("pause/route/{route}"), paused.then_some(&()), effects);
        Ok(())
    }

    fn override_route(
        &mut self,
        route: &Arc<str>,
        change: Option<OverrideSpec>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        self.catalog.route(route).ok_or(Refused::Unknown)?;
        if change.is_none() && !self.orders.overrides.contains_key(route) {
            return Err(Refused::Nothing);
        }
        self.note(format!("override/{route}"), change.as_ref(), effects);
        match change {
            Some(spec) => self.orders.overrides.insert(route.clone(), spec),
            None => self.orders.overrides.remove(route),
        };
        self.use_routes(now, effects);
        Ok(())
    }

    /// Takes up an order that was found at start. One that names what the
    /// configuration has no more is kept for when it comes back.
    pub(super) fn restore_order(
        &mut self,
        name: &str,
        value: &[u8],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(route) = name.strip_prefix("pause/route/") {
            self.orders.paused_routes.insert(route.into());
        } else if let Some(client) = name.strip_prefix("pause/client/") {
            self.orders.paused_clients.insert(client.into());
        } else if let Some(id) = name.strip_prefix("operator/") {
            if let (Some(provider), Ok(hold)) =
                (self.catalog.by_id(id), serde_json::from_slice::<Hold>(value))
            {
                self.since[provider.at()] = hold.since;
                self.board.hold(provider, Some(hold), now.instant);
            }
        } else if let Some(route) = name.strip_prefix("override/")
            && let Ok(spec) = serde_json::from_slice(value)
        {
            self.orders.overrides.insert(route.into(), spec);
            self.use_routes(now, effects);
        }
    }

    /// Orders whose time is over are taken back.
    pub(super) fn end_orders(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let over = |until: Option<Utc>| until.is_some_and(|until| until <= now.utc);
        for at in 0..self.catalog.providers.len() {
            let provider = ProviderIndex(at as u16);
            if self.board.held(provider).is_some_and(|hold| over(hold.until)) {
                self.set_hold(provider, None, now, effects);
            }
        }
        let overrides = self.orders.overrides.iter();
        let ended: Vec<Arc<str>> = overrides
            .filter(|(_, spec)| over(spec.until))
            .map(|(route, _)| route.clone())
            .collect();
        for route in &ended {
            self.orders.overrides.remove(route);
            self.note(format!("override/{route}"), None::<&()>, effects);
        }
        if !ended.is_empty() {
            self.use_routes(now, effects);
        }
    }

    /// When the next order ends by itself.
    pub(super) fn orders_wake(&self, now: Now) -> Option<std::time::Instant> {
        let holds = (0..self.catalog.providers.len())
            .filter_map(|at| self.board.held(ProviderIndex(at as u16))?.until);
        let next = holds.chain(self.orders.ends_at()).min()?;
        Some(now.instant + next.since(now.utc))
    }

    /// Whether a delivery's route or client is paused.
    pub(super) fn is_paused(&self, at: super::StubRef) -> bool {
        let route = &self.lanes.lane(self.deliveries.stubs[at].shape).shape.route;
        let client = self.deliveries.message_of(at).client;
        self.orders.pause(route, &self.clients[usize::from(client.0)].name)
    }

    /// Those that wait for a permit look again: what is usable has changed.
    pub(super) fn gather_ready(&mut self, now: Now) {
        for at in 0..self.ready.len() {
            while let Some(stub) = self.ready[at].last() {
                self.take_out(stub);
                debug_assert_eq!(self.deliveries.stubs[stub].place, Place::Nowhere);
                self.enter(stub, End::Front, now);
            }
        }
    }

    fn use_routes(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let catalog = Arc::new(self.orders.effective(&self.catalog));
        self.catalog = catalog.clone();
        self.plan_anew(now);
        effects.push(Effect::Catalog(catalog));
    }

    fn note<T: Serialize>(&mut self, name: String, value: Option<&T>, effects: &mut Vec<Effect>) {
        // Records of strings and numbers always serialise.
        let value = value.map(|value| serde_json::to_vec(value).unwrap_or_default());
        self.write(Record::Note(name, value), effects);
    }
}

fn set(names: &mut BTreeSet<Arc<str>>, name: &Arc<str>, paused: bool) {
    if paused {
        names.insert(name.clone());
    } else {
        names.remove(name);
    }
}
