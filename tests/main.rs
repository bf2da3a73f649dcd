//! All integration tests in one binary: each further one is another link of
//! everything.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end, with the place")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::unused_self,
    reason = "worlds and harnesses are written for the reader of a test"
)]

mod black_box;
mod house;
mod invariants;
