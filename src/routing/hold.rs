//! What operators order, as the core keeps it. It wins over all evidence, outlives
//! a restart, and ends when its time is over or it is taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Balance, Catalog, Member, Route};
use crate::clock::Utc;

/// An operator keeps a provider out of use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whether it was thrown out rather than drained: it comes back on probation.
    pub ejected: bool,
    /// In the operator's words.
    pub reason: Option<String>,
    /// Since when.
    pub since: Utc,
    /// Until when; `None`: until it is taken back.
    pub until: Option<Utc>,
}

/// A route changed at run time. What is absent is as configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverrideSpec {
    /// Ids of the members of each tier, best tier first.
    pub tiers: Option<Vec<Vec<String>>>,
    /// Shares by provider id.
    pub weights: Option<BTreeMap<String, f64>>,
    /// How a tier's members share.
    pub balance: Option<Balance>,
    /// Until when; `None`: until it is taken back.
    pub until: Option<Utc>,
    /// In the operator's words.
    pub reason: Option<String>,
}

impl OverrideSpec {
    /// The route as it is to be, with those of the providers that there are.
    pub fn apply(&self, route: &Route, catalog: &Catalog) -> Route {
        let mut changed = route.clone();
        if let Some(tiers) = &self.tiers {
            let weight = |provider| {
                let mut members = route.tiers.iter().flatten();
                members.find(|member| member.provider == provider).map_or(1.0, |m| m.weight)
            };
            let member = |id: &String| {
                let provider = catalog.by_id(id)?;
                Some(Member { provider, weight: weight(provider) })
            };
            let tiers = tiers.iter().map(|ids| ids.iter().filter_map(member).collect());
            changed.tiers = tiers.filter(|tier: &Vec<Member>| !tier.is_empty()).collect();
        }
        for (id, weight) in self.weights.iter().flatten() {
            for member in changed.tiers.iter_mut().flatten() {
                if catalog.by_id(id) == Some(member.provider) {
                    member.weight = *weight;
                }
            }
        }
        changed.balance = self.balance.unwrap_or(changed.balance);
        changed
    }
}

/// All route overrides, by the route's name.
pub type Overrides = BTreeMap<Arc<str>, OverrideSpec>;
