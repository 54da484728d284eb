//! What a guest has reported of itself, for a VM's status.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

/// What a guest has reported of itself: fields with names and values that only its kind of guest knows. Of a
/// guest that reports nothing there are none.
///
/// In the JSON of a [`VmStatus`](super::VmStatus) they are beside the VM's own. Read from there, it also has what a
/// newer version has put into the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestReport {
    /// In the order in which they are written.
    fields: Vec<(String, Value)>,
}

impl GuestReport {
    /// The fields of `report`; none if it is not written as an object of JSON.
    pub(crate) fn new(report: &impl Serialize) -> Self {
        // As text: an object of `serde_json` would not keep the order.
        let json = serde_json::to_string(report);
        json.and_then(|json| serde_json::from_str(&json)).unwrap_or_default()
    }

    /// These fields as a `T`; `None` if they are those of another kind of guest.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let object = self.fields.iter().cloned().collect();
        serde_json::from_value(Value::Object(object)).ok()
    }
}

impl Serialize for GuestReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for GuestReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldVisitor)
    }
}

/// Collects whatever fields there are.
struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = GuestReport;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a guest's report")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<GuestReport, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(GuestReport { fields })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
    struct Weather {
        wind: u64,
        sky: Option<String>,
        is_wet: bool,
    }

    const CALM: Weather = Weather { wind: 0, sky: None, is_wet: true };

    #[test]
    fn fields_keep_their_order_and_read_back() {
        let report = GuestReport::new(&CALM);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json, r#"{"wind":0,"sky":null,"is_wet":true}"#);
        let read: GuestReport = serde_json::from_str(&json).unwrap();
        assert_eq!((read.read(), read), (Some(CALM), report));
    }

    #[test]
    fn a_report_of_another_kind_is_not_taken_for_one() {
        assert_eq!(GuestReport::default().read::<Weather>(), None);
        assert_eq!(GuestReport::new(&17), GuestReport::default());
        let other = serde_json::from_str::<GuestReport>(r#"{"wind":0,"waves":3}"#).unwrap();
        assert_eq!(other.read::<Weather>(), None);
    }
}
