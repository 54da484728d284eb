//! Setting a knob by its name, as a user writes it.

use super::{AdvisorMode, KNOB_NAMES, KNOBS, KnobError, KnobKind, Knobs, Run};
use crate::number::parse_number;

/// A value that a knob may have.
enum Value {
    Number(u32),
    Switch(bool),
    Run(Run),
    Advisor(AdvisorMode),
}

/// Where a knob's value is.
enum Place<'a> {
    Number(&'a mut u32),
    Switch(&'a mut bool),
    Run(&'a mut Run),
    Advisor(&'a mut AdvisorMode),
}

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
        let bad = || KnobError::bad(knob.name, value, knob.kind);
        let value = read(knob.kind, value).ok_or_else(bad)?;
        match (self.place(knob.name).ok_or_else(unknown)?, value) {
            (Place::Number(place), Value::Number(number)) => *place = number,
            (Place::Switch(place), Value::Switch(switch)) => *place = switch,
            (Place::Run(place), Value::Run(run)) => *place = run,
            (Place::Advisor(place), Value::Advisor(mode)) => *place = mode,
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// The value of a knob that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        match { *self }.place(name)? {
            Place::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn place(&mut self, name: &str) -> Option<Place<'_>> {
        Some(match name {
            "run" => Place::Run(&mut self.run),
            "pages_to_scan" => Place::Number(&mut self.pages_to_scan),
            "sleep_millisecs" => Place::Number(&mut self.sleep_millisecs),
            "merge_across_nodes" => Place::Switch(&mut self.merge_across_nodes),
            "max_page_sharing" => Place::Number(&mut self.max_page_sharing),
            "smart_scan" => Place::Switch(&mut self.smart_scan),
            "use_zero_pages" => Place::Switch(&mut self.use_zero_pages),
            "stable_node_chains_prune_millisecs" => {
                Place::Number(&mut self.stable_node_chains_prune_millisecs)
            }
            "advisor_mode" => Place::Advisor(&mut self.advisor_mode),
            "advisor_max_cpu" => Place::Number(&mut self.advisor_max_cpu),
            "advisor_target_scan_time" => Place::Number(&mut self.advisor_target_scan_time),
            "advisor_min_pages_to_scan" => Place::Number(&mut self.advisor_min_pages_to_scan),
            "advisor_max_pages_to_scan" => Place::Number(&mut self.advisor_max_pages_to_scan),
            _ => return None,
        })
    }
}

/// A value as it is written; `None` if the knob may not have it.
fn read(kind: KnobKind, value: &str) -> Option<Value> {
    let number = || parse_number(value).ok().and_then(|number| u32::try_from(number).ok());
    Some(match kind {
        KnobKind::Number { min, max } => {
            Value::Number(number().filter(|number| (min..=max).contains(number))?)
        }
        KnobKind::Switch => Value::Switch(match value {
            "false" => false,
            "true" => true,
            _ => number().filter(|&number| number < 2)? == 1,
        }),
        KnobKind::Run => Value::Run(number().and_then(|number| Run::try_from(number).ok())?),
        KnobKind::Advisor => Value::Advisor(match value {
            "none" => AdvisorMode::None,
            "scan-time" => AdvisorMode::ScanTime,
            _ => return None,
        }),
    })
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
