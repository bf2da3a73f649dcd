//! A JSON document held against a shape, in one pass and without building a tree.
//!
//! A tree (`serde_json::Value`) would cost more for each push than all the rest
//! of the simulator's work; here a serde visitor walks document and shape
//! together, and allocates only for what is wrong. Names are accepted in
//! `snake_case` as documented and in `lowerCamelCase`, as Google's parser does.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::json_shape::{Field, Kind, Observer, Path, Violation};

/// Walks a document. The error is one of JSON itself.
pub(super) fn walk(
    json: &[u8],
    kind: &'static Kind,
    observer: &mut impl Observer,
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Place { path: &Path::Root, kind, nullable: true, observer }.deserialize(&mut deserializer)?;
    deserializer.end()
}

struct Place<'a, O> {
    path: &'a Path<'a>,
    kind: &'static Kind,
    /// Whether null may stand here, for "not set".
    nullable: bool,
    observer: &'a mut O,
}

impl<O: Observer> Place<'_, O> {
    fn wrong(self, value: &dyn fmt::Display) {
        let expected = match self.kind {
            Kind::Text(_) | Kind::Texts(_) => "TYPE_STRING",
            Kind::Flag => "TYPE_BOOL",
            Kind::Int => "TYPE_INT32",
            Kind::Ratio => "TYPE_FLOAT",
            Kind::Word(_) => "TYPE_ENUM",
            Kind::List(_) => "TYPE_ARRAY",
            Kind::Object(_) | Kind::Free | Kind::Any => "TYPE_MESSAGE",
        };
        let violation = Violation {
            field: self.path.to_string(),
            description: format!("Invalid value at '{}' ({expected}), {value}", self.path),
        };
        self.observer.violation(violation);
    }

    fn complain(&mut self, description: &str) {
        self.observer.violation(Violation {
            field: self.path.to_string(),
            description: description.to_owned(),
        });
    }

    fn number(self, value: f64, shown: &dyn fmt::Display) {
        let fits = match self.kind {
            Kind::Int => value.fract() == 0.0 && value.abs() < f64::from(i32::MAX),
            Kind::Ratio => (0.0..=1.0).contains(&value),
            Kind::Any => true,
            _ => false,
        };
        if !fits {
            self.wrong(shown);
        }
    }
}

impl<'de, O: Observer> DeserializeSeed<'de> for Place<'_, O> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, O: Observer> Visitor<'de> for Place<'_, O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        match self.kind {
            Kind::Flag => self.observer.flag(self.path, value),
            Kind::Any => {}
            _ => self.wrong(&value),
        }
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.number(value as f64, &value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.number(value as f64, &value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(value, &value);
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        match self.kind {
            Kind::Text(check) => {
                if let Some(fault) = check(value) {
                    self.complain(fault);
                }
                self.observer.text(self.path, value);
            }
            Kind::Word(words) if words.contains(&value) => {}
            Kind::Any => self.observer.text(self.path, value),
            _ => self.wrong(&format_args!("{value:?}")),
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        if !self.nullable {
            self.wrong(&"null");
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let kind = match self.kind {
            Kind::List(kind) => kind,
            Kind::Any => &Kind::Any,
            _ => {
                self.wrong(&"an array");
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        let mut index = 0;
        loop {
            let place = Place {
                path: &Path::Index(self.path, index),
                kind,
                nullable: false,
                observer: &mut *self.observer,
            };
            if seq.next_element_seed(place)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.kind {
            Kind::Object(fields) => self.object(fields, map),
            Kind::Texts(check) => self.texts(*check, map),
            Kind::Free | Kind::Any => self.free(map),
            _ => {
                self.wrong(&"an object");
                let mut map = map;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

impl<O: Observer> Place<'_, O> {
    fn object<'de, A: MapAccess<'de>>(
        mut self,
        fields: &'static [Field],
        mut map: A,
    ) -> Result<(), A::Error> {
        // A bit for each field; no object has more than 32.
        let mut seen = 0_u32;
        loop {
            let mut found = None;
            let key = KeyOf(|key: &str| {
                found = fields.iter().position(|field| is_name(key, field.name));
                if found.is_none() {
                    let at = match self.path {
                        Path::Root => String::new(),
                        path => format!(" at '{path}'"),
                    };
                    self.complain(&format!(
                        "Invalid JSON payload received. Unknown name {key:?}{at}: Cannot find field."
                    ));
                }
            });
            if map.next_key_seed(key)?.is_none() {
                break;
            }
            let Some(found) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen & (1 << found) != 0 {
                // Google's parser refuses the document as a whole.
                return Err(A::Error::custom("duplicate field"));
            }
            seen |= 1 << found;
            map.next_value_seed(Place {
                path: &Path::Name(self.path, fields[found].name),
                kind: &fields[found].kind,
                nullable: true,
                observer: &mut *self.observer,
            })?;
        }
        for (at, field) in fields.iter().enumerate() {
            if field.required && seen & (1 << at) == 0 {
                self.complain(&format!("Missing required field {}", field.name));
            }
        }
        Ok(())
    }

    /// A map of strings. Google names its members by their order:
    /// `message.data[0].value`.
    fn texts<'de, A: MapAccess<'de>>(
        self,
        check: fn(&str) -> Option<&'static str>,
        mut map: A,
    ) -> Result<(), A::Error> {
        for index in 0.. {
            let entry = Path::Index(self.path, index);
            let observer = &mut *self.observer;
            let key = KeyOf(|key: &str| {
                observer.key(self.path, key);
                if let Some(fault) = check(key) {
                    observer.violation(Violation {
                        field: format!("{entry}.key"),
                        description: format!("{fault}: {key}"),
                    });
                }
            });
            if map.next_key_seed(key)?.is_none() {
                break;
            }
            map.next_value_seed(Place {
                path: &Path::Name(&entry, "value"),
                kind: &Kind::Text(|_| None),
                // Here null is not "not set" but a wrong type.
                nullable: false,
                observer: &mut *self.observer,
            })?;
        }
        Ok(())
    }

    fn free<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        loop {
            let observer = &mut *self.observer;
            let key = KeyOf(|key: &str| observer.key(self.path, key));
            if map.next_key_seed(key)?.is_none() {
                return Ok(());
            }
            map.next_value_seed(Place {
                path: &Path::Key(self.path, ""),
                kind: &Kind::Any,
                nullable: true,
                observer: &mut *self.observer,
            })?;
        }
    }
}

/// Hands a key to a function without copying it.
struct KeyOf<F>(F);

impl<'de, F: FnOnce(&str)> DeserializeSeed<'de> for KeyOf<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<F: FnOnce(&str)> Visitor<'_> for KeyOf<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        (self.0)(key);
        Ok(())
    }
}

/// Whether a key is a name, in `snake_case` or in `lowerCamelCase`.
fn is_name(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut key = key.bytes();
    let mut upper = false;
    for byte in name.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let expected = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = false;
        if key.next() != Some(expected) {
            return false;
        }
    }
    key.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHAPE: Kind = Kind::Object(&[
        Field::new("dry_run", Kind::Flag),
        Field::new(
            "message",
            Kind::Object(&[
                Field::required("token", Kind::Text(|_| None)),
                Field::new("data", Kind::Texts(|_| None)),
                Field::new("words", Kind::List(&Kind::Word(&["A", "B"]))),
                Field::new("count", Kind::Int),
                Field::new("free", Kind::Free),
            ]),
        ),
    ]);

    #[derive(Default)]
    struct Seen {
        texts: Vec<String>,
        faults: Vec<String>,
    }

    impl Observer for Seen {
        fn text(&mut self, path: &Path<'_>, text: &str) {
            self.texts.push(format!("{path}={text}"));
        }
        fn flag(&mut self, path: &Path<'_>, flag: bool) {
            self.texts.push(format!("{path}={flag}"));
        }
        fn key(&mut self, _path: &Path<'_>, _key: &str) {}
        fn violation(&mut self, violation: Violation) {
            self.faults.push(violation.field);
        }
    }

    fn walked(json: &str) -> Seen {
        let mut seen = Seen::default();
        walk(json.as_bytes(), &SHAPE, &mut seen).unwrap();
        seen
    }

    #[test]
    fn both_styles_of_names_are_taken() {
        for json in [
            r#"{"dry_run":true,"message":{"token":"t"}}"#,
            r#"{"dryRun":true,"message":{"token":"t"}}"#,
        ] {
            let seen = walked(json);
            assert_eq!(seen.texts, ["dry_run=true", "message.token=t"]);
            assert!(seen.faults.is_empty());
        }
    }

    #[test]
    fn faults_name_their_field() {
        let table = [
            (r#"{"message":{"token":1}}"#, "message.token"),
            (r#"{"message":{}}"#, "message"),
            (r#"{"message":{"token":"t","nope":1}}"#, "message"),
            (r#"{"message":{"token":"t","data":{"a":"x","b":1}}}"#, "message.data[1].value"),
            (r#"{"message":{"token":"t","data":{"a":null}}}"#, "message.data[0].value"),
            (r#"{"message":{"token":"t","words":["A","C"]}}"#, "message.words[1]"),
            (r#"{"message":{"token":"t","count":1.5}}"#, "message.count"),
            (r#"{"message":{"token":"t","free":[]}}"#, "message.free"),
            (r#"{"message":[]}"#, "message"),
        ];
        for (json, field) in table {
            assert_eq!(walked(json).faults, [field], "{json}");
        }
    }

    #[test]
    fn free_objects_take_anything() {
        let seen = walked(r#"{"message":{"token":"t","free":{"a":[1,{"b":null}],"c":true}}}"#);
        assert!(seen.faults.is_empty());
    }

    #[test]
    fn names_that_stand_twice_spoil_the_document() {
        let json = r#"{"message":{"token":"t","token":"u"}}"#;
        assert!(walk(json.as_bytes(), &SHAPE, &mut Seen::default()).is_err());
    }
}
