//! Credentials that are made and renewed: signed tokens (APNs) and OAuth access
//! tokens (FCM), each cached and renewed single-flight, never per request.

pub mod es256;
pub mod metadata;
pub mod oauth;
pub mod service_account;
