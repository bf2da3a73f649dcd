//! From a port to a request and back.
//!
//! `door` opens and shuts the port, `tls` makes the handshake, `wire` stands
//! between TLS and HTTP and does to the bytes what no HTTP library offers
//! (silence, resets, a GOAWAY of our own), `http2` and `http1` serve a
//! connection (`allowed` knows how many streams it may have), and `course` decides what becomes of a request.

mod allowed;
mod body;
mod course;
pub(crate) mod door;
mod frames;
mod http1;
mod http2;
pub(crate) mod manners;
pub(crate) mod tls;
mod wire;

pub(crate) use course::World;
