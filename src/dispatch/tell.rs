//! What the engine tells, put into the words of telemetry.

use super::Fact;
use super::engine::status_words;
use crate::routing::{Catalog, ProviderIndex};
use crate::telemetry::{DeliverySettled, ProviderMoved, Telemetry};

pub(super) fn tell(fact: &Fact, catalog: &Catalog, telemetry: &Telemetry) {
    let id = |provider: ProviderIndex| &catalog.provider(provider).settings.id;
    match fact {
        Fact::Settled { delivery, route, state, reason, took } => {
            telemetry.settled(&DeliverySettled {
                delivery: *delivery,
                route,
                state: *state,
                reason: *reason,
                took: *took,
            });
        }
        Fact::Attempted { delivery, trace, provider, answer, elapsed } => {
            telemetry.attempted(*delivery, *trace, id(*provider), answer, *elapsed);
        }
        Fact::FailedOver { route, from, to, reason } => {
            telemetry.failed_over(route, id(*from), id(*to), reason);
        }
        Fact::Moved(moved) => {
            let (from, _) = status_words(moved.change.from);
            let (to, reason) = status_words(moved.change.to);
            let (provider, part) = (&**id(moved.provider), moved.part.text());
            telemetry.provider_moved(&ProviderMoved { provider, part, from, to, reason });
        }
        Fact::Probed { provider, ok, answer } => telemetry.probed(id(*provider), *ok, answer),
    }
}
