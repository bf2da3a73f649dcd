//! Credentials that are made and renewed: signed tokens (APNs) and OAuth access
//! tokens (FCM), each cached and renewed single-flight, never per request; and
//! the signatures of webhooks, which are made for each.

pub mod es256;
pub mod metadata;
pub mod oauth;
pub mod service_account;
pub mod standard_webhooks;
