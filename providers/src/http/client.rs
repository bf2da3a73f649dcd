//! The common client for peers that are asked rarely.
