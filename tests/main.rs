//! All integration tests in one binary: each further one is another link of
//! everything.

mod black_box;
mod house;
