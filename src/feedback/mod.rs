//! After the outcome. Today: the string that every payload carries, from which a
//! device's receipt will be recognised.

mod receipt;

pub use receipt::Receipts;
