//! All integration tests in one binary: each further one is another link of
//! everything.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should end, with the place")]

mod black_box;
mod house;
