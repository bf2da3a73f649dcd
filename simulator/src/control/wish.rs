//! The body of `PUT /vendors/{name}`, read field by field.
//!
//! By hand and not derived: all faults are to be told at once, each with its
//! pointer, and an unknown field is to be named. What a body leaves out has its
//! default: a behaviour is replaced, never amended.

use std::time::Duration;

use serde_json::{Map, Value};

use super::problem::{FieldFault, Problem};
use crate::faults::{Behaviour, Mode};

const FIELDS: [&str; 13] = [
    "mode",
    "status",
    "share",
    "latency_ms",
    "latency_spread_ms",
    "ack_latency_ms",
    "retry_after_s",
    "for",
    "limit_per_second",
    "goaway_after",
    "goaway_after_age",
    "max_streams",
    "clock_offset_s",
];

/// Reads a behaviour.
pub(super) fn read(body: &[u8]) -> Result<Behaviour, Problem> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| Problem::Malformed(error.to_string()))?;
    let Value::Object(object) = value else {
        return Err(Problem::Malformed("the body is not a JSON object".to_owned()));
    };
    let mut wish = Wish { object, faults: Vec::new() };
    let behaviour = wish.behaviour();
    if wish.faults.is_empty() { Ok(behaviour) } else { Err(Problem::Invalid(wish.faults)) }
}

struct Wish {
    object: Map<String, Value>,
    faults: Vec<FieldFault>,
}

impl Wish {
    fn behaviour(&mut self) -> Behaviour {
        for name in self.object.keys() {
            if !FIELDS.contains(&name.as_str()) {
                let known = FIELDS.join(", ");
                let detail = format!("unknown field {name:?}; there are {known}");
                self.faults.push(FieldFault::new(name, detail));
            }
        }
        let mode = self.take("mode", "one of the modes", mode).unwrap_or_default();
        let share = self.take("share", "a number from 0 to 1", share);
        if share.is_some_and(|share| share < 1.0) && mode.closes_the_door() {
            let detail = format!("{} is the whole vendor's: it has no share", mode.word());
            self.faults.push(FieldFault::new("share", detail));
        }
        let milliseconds = |value: &Value| value.as_u64().map(Duration::from_millis);
        Behaviour {
            mode,
            status: self.take("status", "an HTTP status from 400 to 599", status),
            share: share.unwrap_or(1.0),
            latency: self.take("latency_ms", "a whole number", milliseconds),
            latency_spread: self
                .take("latency_spread_ms", "a whole number", milliseconds)
                .unwrap_or_default(),
            ack_latency: self
                .take("ack_latency_ms", "a whole number", milliseconds)
                .unwrap_or_default(),
            retry_after_s: self.take("retry_after_s", "a whole number", Value::as_u64),
            lasts: self.take("for", "a duration such as \"10s\"", duration),
            limit_per_second: self.take("limit_per_second", "a whole number", |value| {
                value.as_u64()?.try_into().ok()
            }),
            goaway_after: self.take("goaway_after", "a whole number from 1", |value| {
                value.as_u64()?.try_into().ok().filter(|answers| *answers > 0)
            }),
            goaway_after_age: self.take("goaway_after_age", "a duration such as \"10s\"", duration),
            max_streams: self.take("max_streams", "a whole number from 1", |value| {
                value.as_u64()?.try_into().ok().filter(|streams| *streams > 0)
            }),
            clock_offset_s: self
                .take("clock_offset_s", "a whole number, negative for behind", Value::as_i64)
                .unwrap_or_default(),
        }
    }

    /// Reads a field; null is as good as absent.
    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.object.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            let known = match name {
                "mode" => format!(": {}", Mode::ALL.map(Mode::word).join(", ")),
                _ => String::new(),
            };
            let detail = format!("{name} is {value}, not {expected}{known}");
            self.faults.push(FieldFault::new(name, detail));
        }
        read
    }
}

fn mode(value: &Value) -> Option<Mode> {
    let word = value.as_str()?;
    Mode::ALL.into_iter().find(|mode| mode.word() == word)
}

fn status(value: &Value) -> Option<u16> {
    let status = value.as_u64()?.try_into().ok()?;
    (400..600).contains(&status).then_some(status)
}

fn share(value: &Value) -> Option<f64> {
    value.as_f64().filter(|share| (0.0..=1.0).contains(share))
}

/// `"250ms"`, `"10s"`, `"5m"`, `"1h"`; a plain number is seconds.
fn duration(value: &Value) -> Option<Duration> {
    if let Some(seconds) = value.as_u64() {
        return Some(Duration::from_secs(seconds));
    }
    let text = value.as_str()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let body =
            br#"{"mode":"failing","status":503,"share":0.3,"latency_ms":50,"latency_spread_ms":30,"ack_latency_ms":5,
                        "retry_after_s":20,"for":"10s","limit_per_second":100,
                        "goaway_after":7,"goaway_after_age":"5m","max_streams":3,"clock_offset_s":-90}"#;
        let behaviour = read(body).unwrap();
        assert_eq!(behaviour.mode, Mode::Failing);
        assert_eq!(behaviour.status, Some(503));
        assert_eq!(behaviour.share, 0.3);
        assert_eq!(behaviour.latency, Some(Duration::from_millis(50)));
        assert_eq!(behaviour.ack_latency, Duration::from_millis(5));
        assert_eq!(behaviour.retry_after_s, Some(20));
        assert_eq!(behaviour.lasts, Some(Duration::from_secs(10)));
        assert_eq!(behaviour.limit_per_second, Some(100));
        assert_eq!((behaviour.goaway_after, behaviour.clock_offset_s), (Some(7), -90));
        assert_eq!(behaviour.latency_spread, Duration::from_millis(30));
        assert_eq!(behaviour.goaway_after_age, Some(Duration::from_secs(300)));
        assert_eq!(behaviour.max_streams, Some(3));
    }

    #[test]
    fn faults_are_told_together_with_their_pointers() {
        let body = br#"{"mode":"broken","share":2,"latency":5,"for":"soon","status":200}"#;
        let Err(Problem::Invalid(faults)) = read(body) else {
            panic!("not refused as invalid");
        };
        let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/for", "/latency", "/mode", "/share", "/status"]);
        assert!(faults.iter().any(|fault| fault.detail.contains("\"broken\"")));
    }

    #[test]
    fn closed_door_has_no_share() {
        for mode in ["refusing", "unreachable", "tls"] {
            let body = format!("{{\"mode\":\"{mode}\",\"share\":0.5}}");
            assert!(matches!(read(body.as_bytes()), Err(Problem::Invalid(_))));
        }
        assert!(read(br#"{"mode":"blackhole","share":0.5}"#).is_ok());
    }
}
