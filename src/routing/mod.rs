//! Placeholder head, rewritten with the plan.
mod catalog;
mod settings;
pub use catalog::{Built, Catalog, Serves};
pub use settings::{
    Balance, Budget, HealthSettings, Member, Period, ProbeSettings, ProviderIndex,
    ProviderSettings, Rate, RetrySettings, Route,
};
