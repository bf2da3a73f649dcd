//! redb behind the [`Store`](super::Store) trait.
