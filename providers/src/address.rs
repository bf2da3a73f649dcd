//! One way to reach a recipient: a kind, and that kind's token, topic or URL.
//!
//! The fields of a kind are declared by its vendor module ([`Field`]), so that a
//! new vendor adds none here. `Debug` never shows a token: it prints the kind.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::registry::Kind;

/// A field of an address kind.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in the API.
    pub name: &'static str,
    /// Whether an address must have it. Of several fields marked
    /// [`Need::OneOf`], exactly one must be there.
    pub need: Need,
}

/// Whether a field must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Always.
    Required,
    /// It may be left out.
    Optional,
    /// Exactly one of the fields so marked.
    OneOf,
    /// Unless that other field, which is optional, stands in its place: the usual
    /// way to name a recipient, and a rare one.
    Unless(&'static str),
}

/// Fields that say through which account a device is reached, and nothing of the
/// device: an app's name, a project's, the public key it was subscribed with.
const OF_ACCOUNT: [&str; 3] = ["app", "project", "vapid"];

/// A checked address. Cheap to clone.
#[derive(Clone)]
pub struct Address(Arc<Inner>);

struct Inner {
    kind: &'static Kind,
    /// Values by the field's position in [`Kind::fields`].
    values: SmallVec<[(u8, Box<str>); 2]>,
    provider: Option<Box<str>>,
    registered_at: Option<u64>,
}

impl Address {
    /// Checks the values against the kind's fields and its own rules.
    ///
    /// `values` holds (field name, value); `provider` binds the address to one
    /// provider id; `registered_at` is when the app registered it, unix ms.
    ///
    /// # Errors
    /// All that is wrong, each with the name of its field (`""`: the address as a whole).
    pub fn new(
        kind: &'static Kind,
        values: &[(&str, &str)],
        provider: Option<&str>,
        registered_at: Option<u64>,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut kept: SmallVec<[(u8, Box<str>); 2]> = SmallVec::new();
        for (position, field) in kind.fields.iter().enumerate() {
            match values.iter().find(|(name, _)| *name == field.name) {
                Some((_, "")) => {
                    errors.push(FieldError::new(field.name, "must not be empty"));
                }
                Some((_, value)) if value.chars().any(char::is_control) => {
                    errors.push(FieldError::new(
                        field.name,
                        "must not contain line breaks or control characters",
                    ))
                }
                // A kind has a handful of fields, so the position fits.
                Some((_, value)) => kept.push((position as u8, Box::from(*value))),
                None if field.need == Need::Required => {
                    errors.push(FieldError::new(field.name, "is required"));
                }
                None => {
                    if let Need::Unless(other) = field.need
                        && !values.iter().any(|(name, _)| *name == other)
                    {
                        errors.push(FieldError::new(field.name, "is required"));
                    }
                }
            }
        }
        errors.extend(one_of_fault(kind, values));
        errors.extend(both_fault(kind, values));
        if !errors.is_empty() {
            return Err(errors);
        }
        let address = Self(Arc::new(Inner {
            kind,
            values: kept,
            provider: provider.map(Box::from),
            registered_at,
        }));
        (kind.check_address)(&address).map(|()| address).map_err(|error| vec![error])
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.0.kind
    }

    /// A field's value.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.values().find(|(name, _)| *name == field).map(|(_, value)| value)
    }

    /// All fields that are set, by name.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.values.iter().filter_map(|(position, value)| {
            Some((self.0.kind.fields.get(usize::from(*position))?.name, &**value))
        })
    }

    /// The values that nobody but the backend and the vendor may see: whoever has
    /// them can write to the device, or knows it again.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.values().filter(|(name, _)| !OF_ACCOUNT.contains(name)).map(|(_, value)| value)
    }

    /// The provider that this address is bound to, if it is.
    pub fn provider(&self) -> Option<&str> {
        self.0.provider.as_deref()
    }

    /// When the app registered it, unix ms.
    pub fn registered_at(&self) -> Option<u64> {
        self.0.registered_at
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.0.kind.name)
    }
}

/// Of the fields marked [`Need::OneOf`] exactly one must be given.
fn one_of_fault(kind: &Kind, values: &[(&str, &str)]) -> Option<FieldError> {
    let choices: Vec<&str> =
        kind.fields.iter().filter(|f| f.need == Need::OneOf).map(|f| f.name).collect();
    let given =
        choices.iter().filter(|name| values.iter().any(|(given, _)| given == *name)).count();
    (!choices.is_empty() && given != 1)
        .then(|| FieldError::new("", &format!("needs exactly one of {}", choices.join(", "))))
}

/// A field and the one that stands in its place.
fn both_fault(kind: &Kind, values: &[(&str, &str)]) -> Option<FieldError> {
    let given = |name: &str| values.iter().any(|(given, _)| *given == name);
    kind.fields.iter().find_map(|field| {
        let Need::Unless(other) = field.need else { return None };
        let detail = format!("needs exactly one of {}, {other}", field.name);
        (given(field.name) && given(other)).then(|| FieldError::new("", &detail))
    })
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name; empty for the address as a whole.
    pub field: &'static str,
    /// What is wrong, never with the value itself.
    pub detail: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: &'static str, detail: &str) -> Self {
        Self { field, detail: detail.to_owned() }
    }
}
