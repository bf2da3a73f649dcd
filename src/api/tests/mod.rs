//! The api listener as a backend meets it: requests in, answers out.

mod batch;
mod calls;
mod description;
mod explain;
mod faults;
mod harness;
mod receipts;
mod registry;
