//! The providers against the vendor simulator, in one binary: each further one
//! would be another link of everything.
#![allow(clippy::unwrap_used, reason = "an arrangement that fails fails its test")]

mod fcm;
