//! Values that must not be seen: credentials from the configuration.
//!
//! Neither `Debug` nor `Display` shows anything of them, they are wiped when
//! dropped, and they cannot be serialised.

use secrecy::{ExposeSecret, SecretString};

/// A credential's text. Prints as `***`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        // Used only to see whether a reload changed a provider.
        self.expose() == other.expose()
    }
}
