//! Record encoding.
