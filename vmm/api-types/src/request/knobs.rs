//! The knobs that are to be changed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::RequestBody;

/// The longest name or value that is looked at, in bytes: it is repeated in the answer if it is
/// wrong.
const MAX_TEXT_BYTES: usize = 64;

/// Names and values, as the engine takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnobChanges(pub Vec<(String, String)>);

impl RequestBody for KnobChanges {
    const HINT: &'static str =
        "send {\"KNOB\": VALUE, …} with names and values as GET /v1/dedup has them in \"knobs\"";
}

impl Serialize for KnobChanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for KnobChanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Changes)
    }
}

struct Changes;

impl<'de> Visitor<'de> for Changes {
    type Value = KnobChanges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of knobs and their values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KnobChanges, A::Error> {
        let mut changes: Vec<(String, String)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if key.len() > MAX_TEXT_BYTES {
                return Err(A::Error::custom("no knob has so long a name"));
            }
            if changes.iter().any(|(other, _)| *other == key) {
                return Err(A::Error::custom(format_args!("'{key}' is there twice")));
            }
            let value = match value {
                Value::Number(number) => number.to_string(),
                Value::Bool(switch) => switch.to_string(),
                Value::String(text) if text.len() <= MAX_TEXT_BYTES => text,
                Value::String(_) => {
                    return Err(A::Error::custom(format_args!("the value of '{key}' is too long")));
                }
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(A::Error::custom(format_args!(
                        "the value of '{key}' is no number, true, false or text"
                    )));
                }
            };
            changes.push((key, value));
        }
        Ok(KnobChanges(changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_switches_and_text_are_what_a_user_would_type() {
        let changes = serde_json::from_str::<KnobChanges>(
            "{\"run\": 2, \"smart_scan\": true, \"advisor_mode\": \"none\", \"x\": 1e300}",
        );
        let expected =
            [("run", "2"), ("smart_scan", "true"), ("advisor_mode", "none"), ("x", "1e+300")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(changes.expect("changes"), KnobChanges(expected.to_vec()));
    }

    #[test]
    fn a_knob_that_is_there_twice_is_refused() {
        let error = serde_json::from_str::<KnobChanges>("{\"run\": 2, \"run\": 1}");
        assert!(error.expect_err("twice").to_string().starts_with("'run' is there twice"));
    }
}
