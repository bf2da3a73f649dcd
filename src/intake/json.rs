//! A JSON body as a small borrowed tree, read strictly.
//!
//! Validation wants to report every fault of a body at once, with pointers; a
//! typed `Deserialize` stops at the first one. And `serde_json::Value` copies
//! each string and lets the last of two equal keys win, which would make a
//! message mean something else than its author reads in it. So: strings borrow
//! from the body, objects are lists of pairs, equal keys are an error, and
//! nesting is bounded before it can cost stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Up to here equal keys are looked for pair by pair, beyond by sorting.
const FEW_KEYS: usize = 16;

/// 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The key of an object, and what stands there.
pub type Member<'a> = (Cow<'a, str>, Node<'a>);

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'a> {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number that fits.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// A list.
    Array(Vec<Self>),
    /// An object, in the order of the body.
    Object(Vec<Member<'a>>),
}

impl<'a> Node<'a> {
    /// What stands at this key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Node::Object(members) => {
                members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            Node::Null
            | Node::Bool(_)
            | Node::Integer(_)
            | Node::Number(_)
            | Node::Text(_)
            | Node::Array(_) => None,
        }
    }

    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Node::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if it is one, also when it is written as `7.0` (JSON Schema,
    /// section 6.1.1: an integer is a number without a fraction).
    pub fn whole(&self) -> Option<i64> {
        match self {
            Node::Integer(number) => Some(*number),
            // Below that each whole number has its own double.
            Node::Number(number) if number.fract() == 0.0 && number.abs() < EXACT => {
                Some(*number as i64)
            }
            Node::Number(_)
            | Node::Null
            | Node::Bool(_)
            | Node::Text(_)
            | Node::Array(_)
            | Node::Object(_) => None,
        }
    }

    /// What it is, for messages to people.
    pub fn shape(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Integer(_) | Node::Number(_) => "a number",
            Node::Text(_) => "a string",
            Node::Array(_) => "a list",
            Node::Object(_) => "an object",
        }
    }
}

/// Why a body is no JSON document that we take: where and what, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Reads one JSON document, and nothing behind it.
///
/// # Errors
/// [`Malformed`]: not UTF-8, not JSON, trailing bytes, deeper than `max_depth`,
/// or two equal keys in one object.
pub fn parse(body: &[u8], max_depth: usize) -> Result<Node<'_>, Malformed> {
    // Checked once for the whole body, so that each string need not be.
    let text = std::str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    if text.bytes().all(|b| b.is_ascii_whitespace()) {
        return Err(Malformed("the body is empty; send a JSON object".to_owned()));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = Seed { depth_left: max_depth, max_depth }
        .deserialize(&mut deserializer)
        .map_err(|error| unreadable(&error))?;
    deserializer.end().map_err(|error| {
        Malformed(format!("something follows the end of the JSON document {}", place(&error)))
    })?;
    Ok(node)
}

/// The parser's own words speak of its grammar; ours say what to look for.
fn unreadable(error: &serde_json::Error) -> Malformed {
    use serde_json::error::Category;
    let place = place(error);
    Malformed(match error.classify() {
        // Said by our own visitor: too deep, equal keys.
        Category::Data => error.to_string(),
        Category::Eof => {
            format!("the JSON document ends too early {place}; a quote, ] or }} may be missing")
        }
        Category::Syntax | Category::Io => {
            format!("this is not JSON {place}; look at the quotes, commas and brackets there")
        }
    })
}

fn place(error: &serde_json::Error) -> String {
    format!("at line {} column {}", error.line(), error.column())
}

fn not_utf8(body: &[u8], at: usize) -> Malformed {
    let before = &body[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Malformed(format!("the body is not UTF-8 at line {line} column {column}"))
}

#[derive(Clone, Copy)]
struct Seed {
    depth_left: usize,
    max_depth: usize,
}

impl Seed {
    /// For what stands inside an object or list.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(E::custom(format_args!("nested more than {} levels deep", self.max_depth))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(i64::try_from(value).map_or(Node::Number(value as f64), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Node::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut members: Vec<Member<'de>> = Vec::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if members.len() < FEW_KEYS && members.iter().any(|(name, _)| *name == key) {
                return Err(repeated(&key));
            }
            members.push((key, entries.next_value_seed(inner)?));
        }
        match repeated_of_many(&members) {
            Some(key) => Err(repeated(key)),
            None => Ok(Node::Object(members)),
        }
    }
}

fn repeated_of_many<'m>(members: &'m [Member<'_>]) -> Option<&'m str> {
    if members.len() <= FEW_KEYS {
        return None;
    }
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn repeated<E: serde::de::Error>(key: &str) -> E {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    E::custom(format_args!("the key \"{shown}\" stands twice in one object"))
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Integer(value) => serializer.serialize_i64(*value),
            Node::Number(value) => serializer.serialize_f64(*value),
            Node::Text(text) => serializer.serialize_str(text),
            Node::Array(items) => serializer.collect_seq(items),
            Node::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        let text = r#"{"a":[1,-2,2.5,"x\n"],"b":{"c":null,"d":true}}"#;
        let node = parse(text.as_bytes(), 32).unwrap();
        assert_eq!(serde_json::to_string(&node).unwrap(), text);
        assert_eq!(node.get("b").and_then(|b| b.get("d")), Some(&Node::Bool(true)));
    }

    #[test]
    fn a_number_without_a_fraction_is_whole_however_it_is_written() {
        for (text, whole) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("-7e2", Some(-700)),
            ("7.5", None),
            ("1e300", None),
            ("18446744073709551615", None),
            ("\"7\"", None),
        ] {
            assert_eq!(parse(text.as_bytes(), 3).unwrap().whole(), whole, "{text}");
        }
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        let Node::Text(text) = parse(br#""plain""#, 32).unwrap() else { panic!("a string") };
        assert!(matches!(text, Cow::Borrowed("plain")));
    }

    #[test]
    fn malformed_bodies_say_what_and_where() {
        let many: String = (0..20).map(|n| format!("\"k{n}\":1,")).collect();
        let cases: [(&[u8], &str); 10] = [
            (b"", "the body is empty; send a JSON object"),
            (b" \n", "the body is empty; send a JSON object"),
            (b"{\"a\":1}x", "something follows the end of the JSON document at line 1 column 8"),
            (
                b"{\"a\":1",
                "the JSON document ends too early at line 1 column 6; a quote, ] or } may be missing",
            ),
            (b"{\"a\":1,\n\"a\":2}", "the key \"a\" stands twice in one object at line 2 column 3"),
            (b"{\n\"a\":\"\xff\"}", "the body is not UTF-8 at line 2 column 6"),
            (
                b"{'a':1}",
                "this is not JSON at line 1 column 2; look at the quotes, commas and brackets there",
            ),
            (
                b"nope",
                "this is not JSON at line 1 column 2; look at the quotes, commas and brackets there",
            ),
            (b"[[[[1]]]]", "nested more than 3 levels deep at line 1 column 4"),
            (
                b"\"\\ud800\"",
                "this is not JSON at line 1 column 8; look at the quotes, commas and brackets there",
            ),
        ];
        for (body, expected) in cases {
            let Malformed(detail) = parse(body, 3).unwrap_err();
            assert_eq!(detail, expected, "{}", String::from_utf8_lossy(body));
        }
        let Malformed(detail) = parse(format!("{{{many}\"k3\":2}}").as_bytes(), 3).unwrap_err();
        assert!(detail.starts_with("the key \"k3\" stands twice in one object"), "{detail}");
    }

    #[test]
    fn depth_up_to_the_limit_is_taken() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(deep(32).as_bytes(), 32).is_ok());
        assert!(parse(deep(33).as_bytes(), 32).is_err());
        assert!(parse(deep(100_000).as_bytes(), 32).is_err());
    }
}
