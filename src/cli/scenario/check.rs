//! What no single value of a scenario file shows: names that must be known, and what an
//! expectation needs to be measured at all. Told with the place of the value.

use std::ops::Range;

use super::{Expect, Scenario};
use crate::cli::load::config::OPERATOR;

impl Scenario {
    /// What no single value shows.
    pub(super) fn check(&self) -> Result<(), (Range<usize>, String)> {
        for client in self.traffic.iter().filter_map(|stream| stream.client.as_ref()) {
            let name = client.get_ref();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
                let what = format!("{name:?} is no client's name: letters, digits, . _ -");
                return Err((client.span(), what));
            }
            if name == OPERATOR {
                return Err((client.span(), format!("the client {OPERATOR:?} is the bench's own")));
            }
        }
        for reload in &self.reload {
            if let Err(error) = reload.keys.get_ref().parse::<toml::Table>() {
                return Err((reload.keys.span(), format!("not TOML: {}", error.message())));
            }
        }
        self.expect.iter().try_for_each(|expect| self.check_expect(expect))
    }

    fn check_expect(&self, expect: &Expect) -> Result<(), (Range<usize>, String)> {
        let figure = *expect.figure.get_ref();
        if let Some(traffic) = &expect.traffic {
            let names: Vec<_> =
                self.traffic.iter().filter_map(|stream| stream.name.as_deref()).collect();
            if !names.contains(&traffic.get_ref().as_str()) {
                let (known, name) = (names.join(", "), traffic.get_ref());
                let known = if known.is_empty() { "none with a name" } else { &known };
                return Err((
                    traffic.span(),
                    format!("unknown traffic {name:?}; there is {known}"),
                ));
            }
            if !figure.is_of_messages() {
                return Err((traffic.span(), "this figure is not of messages".to_owned()));
            }
        }
        if figure.has_baseline() && expect.baseline_to.or(self.first_step()).is_none() {
            let what = "nothing to compare with: set baseline_to, or let the first step come later";
            return Err((expect.figure.span(), what.to_owned()));
        }
        if !figure.has_baseline() && expect.baseline_to.is_some() {
            return Err((expect.figure.span(), "this figure has no baseline".to_owned()));
        }
        Ok(())
    }
}
