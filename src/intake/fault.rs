//! What is wrong with a request, told all at once: a backend that fixes one field
//! only to hear of the next loses a day.
//!
//! Pointers (RFC 6901) are built only when there is a fault: on the way down a
//! place is a link to the place above, on the stack.

use std::fmt::Write;

use pushyard_providers::pointer_token;
use serde::Serialize;
use utoipa::ToSchema;

use super::json::Node;

/// Faults told at most; a body with more has one cause, and it is among them.
const TOLD: usize = 200;

/// From this similarity on (Damerau-Levenshtein, 0 to 1) a name is taken for a
/// slip: two letters that changed places in a word of three.
const SIMILAR: f64 = 0.55;

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the request body; empty: the whole.
    #[schema(example = "/to/0/addresses/1/kind")]
    pub pointer: String,
    /// What is wrong, and what to do.
    #[schema(example = "unknown kind \"apn\"; did you mean \"apns\"?")]
    pub detail: String,
    /// The same for programs: `required`, `unknown_field`, `wrong_type`, `out_of_range`, `unknown_kind`, `unknown_route`, `unknown_provider`, `invalid_value`, `conflict`, `no_route`, `no_devices`, or a vendor's reason such as `too_large`.
    #[schema(example = "unknown_kind")]
    pub code: &'static str,
}

/// A place in the body.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'p> {
    Root,
    Key(&'p Self, &'p str),
    Item(&'p Self, usize),
}

impl At<'_> {
    pub(super) fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, pointer: &mut String) {
        match self {
            At::Root => {}
            At::Key(above, key) => {
                above.write(pointer);
                pointer.push('/');
                pointer.push_str(&pointer_token(key));
            }
            At::Item(above, index) => {
                above.write(pointer);
                // Writing to a string cannot fail.
                let _ = write!(pointer, "/{index}");
            }
        }
    }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn push(&mut self, at: At<'_>, code: &'static str, detail: impl Into<String>) {
        if self.0.len() < TOLD {
            self.0.push(Fault { pointer: at.pointer(), detail: detail.into(), code });
        }
    }

    pub(super) fn required(&mut self, at: At<'_>) {
        self.push(at, "required", "is required");
    }

    pub(super) fn wrong_type(&mut self, at: At<'_>, wanted: &str, found: &Node<'_>) {
        let hint = if *found == Node::Null { "; leave the field out instead" } else { "" };
        self.push(at, "wrong_type", format!("must be {wanted}, not {}{hint}", found.shape()));
    }

    pub(super) fn unknown_field<'k>(
        &mut self,
        at: At<'_>,
        field: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let detail = format!("unknown field {}{}", quoted(field), did_you_mean(field, known));
        self.push(At::Key(&at, field), "unknown_field", detail);
    }

    /// The string at `at`; a fault when it is something else.
    pub(super) fn text<'n>(&mut self, at: At<'_>, node: &'n Node<'_>) -> Option<&'n str> {
        if node.text().is_none() {
            self.wrong_type(at, "a string", node);
        }
        node.text()
    }
}

/// A name out of a request as it is shown: bounded, without control characters.
pub(super) fn quoted(name: &str) -> String {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("\"{shown}\"")
}

/// `; did you mean "…"?`, or nothing.
pub(super) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    // A long name is no slip, and comparing costs by its length.
    if name.len() > 64 {
        return String::new();
    }
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, nearest)| format!("; did you mean \"{nearest}\"?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped_as_rfc_6901_says() {
        let root = At::Root;
        let data = At::Key(&root, "data");
        let item = At::Item(&data, 7);
        assert_eq!(At::Key(&item, "a/b~c").pointer(), "/data/7/a~1b~0c");
        assert_eq!(root.pointer(), "");
    }

    #[test]
    fn only_a_similar_name_is_suggested() {
        assert_eq!(did_you_mean("apn", ["apns", "fcm"]), "; did you mean \"apns\"?");
        assert_eq!(did_you_mean("titel", ["title", "body"]), "; did you mean \"title\"?");
        assert_eq!(did_you_mean("zebra", ["title", "body"]), "");
    }
}
