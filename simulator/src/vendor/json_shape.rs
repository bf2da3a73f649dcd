//! What a JSON document may contain, as data.
//!
//! FCM refuses unknown names and wrong types, and names the field; the router is
//! tested against exactly that. Typed structs could report only the first fault,
//! and not in the vendor's words. So the shape is a table (`Kind`, `Field`), and
//! `json_walk` holds a document against it. What passes by is told to an
//! `Observer`, with its `Path`.

use std::fmt;

/// What may stand at a place.
pub(super) enum Kind {
    /// A string, checked by a function that says what is wrong with it.
    Text(fn(&str) -> Option<&'static str>),
    Flag,
    /// A 32-bit integer.
    Int,
    /// A number from 0 to 1.
    Ratio,
    /// One of these words.
    Word(&'static [&'static str]),
    List(&'static Self),
    /// A map from string to string; keys are checked by a function.
    Texts(fn(&str) -> Option<&'static str>),
    Object(&'static [Field]),
    /// Any JSON object.
    Free,
    /// Anything inside a free object.
    Any,
}

/// A member of an object.
pub(super) struct Field {
    /// Its name in `snake_case`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether the object is incomplete without it.
    pub(super) required: bool,
}

impl Field {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }

    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true }
    }
}

/// A fault, in the words of Google's parser.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) field: String,
    pub(super) description: String,
}

/// What is told about the texts that the walk passes.
pub(super) trait Observer {
    /// A string at a place that the shape knows.
    fn text(&mut self, path: &Path<'_>, text: &str);
    /// A flag.
    fn flag(&mut self, path: &Path<'_>, flag: bool);
    /// A key of a map or of a free object.
    fn key(&mut self, path: &Path<'_>, key: &str);
    /// Something is wrong.
    fn violation(&mut self, violation: Violation);
}

/// Where the walk is: a list that lives on the stack, written out only for a
/// fault.
pub(super) enum Path<'a> {
    Root,
    Name(&'a Self, &'static str),
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl Path<'_> {
    /// Whether this is exactly these names from the root.
    pub(super) fn is(&self, names: &[&str]) -> bool {
        match (self, names.split_last()) {
            (Self::Root, None) => true,
            (Self::Name(parent, name), Some((last, rest))) => name == last && parent.is(rest),
            _ => false,
        }
    }

    /// The name at a depth below the root, if there is one.
    pub(super) fn name_at(&self, depth: usize) -> Option<&'static str> {
        match self {
            Self::Root => None,
            Self::Name(parent, name) => match parent.depth().cmp(&depth) {
                std::cmp::Ordering::Equal => Some(name),
                std::cmp::Ordering::Greater => parent.name_at(depth),
                std::cmp::Ordering::Less => None,
            },
            Self::Key(parent, _) | Self::Index(parent, _) => parent.name_at(depth),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Name(parent, _) | Self::Key(parent, _) | Self::Index(parent, _) => {
                1 + parent.depth()
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(Self::Root, name) => f.write_str(name),
            Self::Name(parent, name) => write!(f, "{parent}.{name}"),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
