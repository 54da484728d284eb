//! Setting a knob by its name, as a user writes it.

use super::table::Field;
use super::{AdvisorMode, KNOB_NAMES, KNOBS, KnobError, KnobInfo, KnobKind, Knobs, Run};
use crate::number::parse_number;

impl Knobs {
    /// Changes the knob called `key`. Numbers are taken as [`parse_number`] does; switches take 0 and 1,
    /// as in the kernel, or false and true.
    ///
    /// # Errors
    ///
    /// When there is no such knob, or its value is out of range, or the advisor is in charge of it;
    /// nothing has changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), KnobError> {
        let value = value.trim();
        let unknown = || KnobError::Unknown { key: key.to_owned(), known: KNOB_NAMES.join(", ") };
        let knob = KNOBS.iter().find(|knob| knob.name == key).ok_or_else(unknown)?;
        if knob.name == "pages_to_scan" && self.advisor_mode != AdvisorMode::None {
            return Err(KnobError::Advised);
        }
        self.read(knob, value).ok_or_else(|| KnobError::bad(knob.name, value, knob.kind))
    }

    /// Changes several knobs, of names and values: all of them, or none. In any order: whether
    /// `pages_to_scan` can be set is decided by the `advisor_mode` that is set with it.
    ///
    /// # Errors
    ///
    /// As for [`set`](Self::set) and [`check`](Self::check); nothing has changed.
    pub fn set_all<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), KnobError> {
        let mut knobs = *self;
        let (advisor, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(key, _)| *key == "advisor_mode");
        for (key, value) in advisor.into_iter().chain(others) {
            knobs.set(key, value)?;
        }
        knobs.check()?;
        *self = knobs;
        Ok(())
    }

    /// Gives a knob the value that is written; `None` if it may not have it.
    fn read(&mut self, knob: &KnobInfo, value: &str) -> Option<()> {
        let number = || parse_number(value).ok().and_then(|number| u32::try_from(number).ok());
        match knob.field {
            Field::Number(field) => {
                let number = number().filter(|&number| knob.kind.allows(number))?;
                *field(self) = number;
            }
            Field::Switch(field) => {
                *field(self) = match value {
                    "false" => false,
                    "true" => true,
                    _ => number().filter(|&number| number < 2)? == 1,
                }
            }
            Field::Run(field) => *field(self) = Run::try_from(number()?).ok()?,
            Field::Advisor(field) => {
                *field(self) = match value {
                    "none" => AdvisorMode::None,
                    "scan-time" => AdvisorMode::ScanTime,
                    _ => return None,
                }
            }
        }
        Some(())
    }
}

impl KnobKind {
    /// Whether a number is in the range of those that a knob may have.
    pub(super) fn allows(self, number: u32) -> bool {
        match self {
            Self::Number { min, max } => (min..=max).contains(&number),
            Self::Switch | Self::Run | Self::Advisor => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_can_be_set_by_its_name_and_is_reported_under_it() {
        for name in KNOB_NAMES {
            let mut knobs = Knobs::default();
            let value = match name {
                "run" => "2",
                "advisor_mode" => "scan-time",
                "merge_across_nodes" | "smart_scan" | "use_zero_pages" => "0",
                _ => "77",
            };
            knobs.set(name, value).unwrap();
            assert_ne!(knobs, Knobs::default(), "{name}");
            let json = serde_json::to_value(knobs).unwrap();
            assert!(json.get(name).is_some(), "{name} in {json}");
        }
        let json = serde_json::to_value(Knobs::default()).unwrap();
        assert_eq!(json.as_object().unwrap().len(), KNOB_NAMES.len());
    }

    #[test]
    fn several_are_set_in_any_order_or_none() {
        let mut knobs = Knobs { advisor_mode: AdvisorMode::ScanTime, ..Knobs::default() };
        let before = knobs;
        for refused in [
            [("smart_scan", "0"), ("pages_to_scan", "7")],
            [("smart_scan", "0"), ("advisor_min_pages_to_scan", "30001")],
        ] {
            knobs.set_all(refused).unwrap_err();
            assert_eq!(knobs, before);
        }
        knobs.set_all([("pages_to_scan", "7"), ("advisor_mode", "none")]).unwrap();
        assert_eq!((knobs.pages_to_scan, knobs.advisor_mode), (7, AdvisorMode::None));
    }

    #[test]
    fn bad_values_are_refused_with_what_is_allowed() {
        let refused = |key, value| {
            let mut knobs = Knobs::default();
            let error = knobs.set(key, value).unwrap_err().to_string();
            assert_eq!(knobs, Knobs::default());
            error
        };
        assert_eq!(
            refused("max_page_sharing", "1"),
            "max_page_sharing is a whole number from 2 to 1048576, not '1'"
        );
        assert_eq!(
            refused("run", "3"),
            "run is 0 (stop), 1 (fold) or 2 (unmerge everything), not '3'"
        );
        assert_eq!(refused("smart_scan", "2"), "smart_scan is 0 or 1, not '2'");
        assert!(refused("pages_to_scan", "0").contains("from 1 to"));
        assert!(refused("pages_to_scan", "-1").contains("from 1 to"));
        assert!(refused("pages_to_scan", "4G").contains("from 1 to"));
        assert!(refused("pages_to_skip", "1").contains("there are: run, pages_to_scan"));
    }

    #[test]
    fn a_decimal_unit_is_refused_with_the_reason() {
        for (key, value, unit) in [
            ("pages_to_scan", "64KB", "KB"),
            ("sleep_millisecs", "1.5kB", "kB"),
            ("run", "1MB", "MB"),
        ] {
            let error = Knobs::default().set(key, value).unwrap_err().to_string();
            let reason = format!(", not '{value}': {unit} would be decimal (1KB is 1000 bytes)");
            assert!(error.starts_with(&format!("{key} is ")) && error.contains(&reason), "{error}");
        }
        let error = Knobs::default().set("advisor_mode", "1KB").unwrap_err().to_string();
        assert_eq!(error, "advisor_mode is none or scan-time, not '1KB'");
    }

    #[test]
    fn values_are_taken_as_they_are_shown_and_numbers_as_people_write_them() {
        let mut knobs = Knobs::default();
        for (value, shown) in [("0", 0), ("true", 1), ("false", 0), ("1", 1)] {
            knobs.set("smart_scan", value).unwrap();
            let json = serde_json::to_value(knobs).unwrap();
            assert_eq!(json["smart_scan"], shown, "{value}");
            assert_eq!(serde_json::from_value::<Knobs>(json).unwrap(), knobs);
        }
        for (value, pages) in [("16K", 16_384), ("0x100", 256), ("1.5K", 1536)] {
            knobs.set("pages_to_scan", value).unwrap();
            assert_eq!(knobs.pages_to_scan, pages, "{value}");
        }
    }

    #[test]
    fn the_advisor_is_in_charge_while_it_is_on() {
        let mut knobs = Knobs { advisor_mode: AdvisorMode::ScanTime, ..Knobs::default() };
        assert_eq!(knobs.set("pages_to_scan", "5"), Err(KnobError::Advised));
        knobs.set("advisor_mode", "none").unwrap();
        knobs.set("pages_to_scan", "5").unwrap();
    }

    #[test]
    fn the_advisors_bounds_must_fit_together() {
        let mut knobs = Knobs::default();
        knobs.set("advisor_min_pages_to_scan", "40000").unwrap();
        assert!(matches!(knobs.check(), Err(KnobError::AdvisorRange { min: 40_000, max: 30_000 })));
    }
}
