//! The limit of open files: every connection is one, and systems give a process few
//! (mostly 1024) until it asks for those that it may have.
//!
//! Asking costs nothing here: what the low limit protects are programs that use
//! `select`, which this one does not.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises this process's limit, which its children inherit, to what it may have at
/// most; returns it, `None` when there is none.
pub(super) fn raise() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        // Some systems bound it once more; it stays as it was then.
        if setrlimit(Resource::Nofile, limit).is_err() {
            return before;
        }
    }
    limit.current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_is_taken() {
        let raised = raise();
        assert_eq!(raised, getrlimit(Resource::Nofile).current);
        assert_eq!(raised, raise());
    }
}
