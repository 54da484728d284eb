//! Setting a knob by its name, as a user writes it.

use std::ops::RangeInclusive;

use super::{AdvisorMode, KnobError, Knobs, MILLISECS, PAGES, PER_CENT, Run, SECONDS, SHARING};

/// The knobs' names.
pub const NAMES: [&str; 13] = [
    "run",
    "pages_to_scan",
    "sleep_millisecs",
    "merge_across_nodes",
    "max_page_sharing",
    "smart_scan",
    "use_zero_pages",
    "stable_node_chains_prune_millisecs",
    "advisor_mode",
    "advisor_max_cpu",
    "advisor_target_scan_time",
    "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan",
];

impl Knobs {
    /// Changes the knob called `key`. Switches take 0 and 1, as in the kernel, or true and false.
    ///
    /// # Errors
    ///
    /// When there is no such knob, or its value is out of range, or the advisor is in charge of it;
    /// nothing has changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), KnobError> {
        let value = value.trim();
        let known = NAMES.iter().copied().find(|name| *name == key);
        let unknown = || KnobError::Unknown { key: key.to_owned(), known: NAMES.join(", ") };
        let key = known.ok_or_else(unknown)?;
        let number = |range: RangeInclusive<u32>| number(key, value, &range);
        let switch = || switch(key, value);
        match key {
            "run" => {
                let run = value.parse().ok().and_then(|number: u32| Run::try_from(number).ok());
                let allowed = "0 (stop), 1 (fold) or 2 (unmerge everything)";
                self.run = run.ok_or_else(|| bad(key, value, allowed))?;
            }
            "pages_to_scan" if self.advisor_mode != AdvisorMode::None => {
                return Err(KnobError::Advised);
            }
            "pages_to_scan" => self.pages_to_scan = number(PAGES)?,
            "sleep_millisecs" => self.sleep_millisecs = number(MILLISECS)?,
            "merge_across_nodes" => self.merge_across_nodes = switch()?,
            "max_page_sharing" => self.max_page_sharing = number(SHARING)?,
            "smart_scan" => self.smart_scan = switch()?,
            "use_zero_pages" => self.use_zero_pages = switch()?,
            "stable_node_chains_prune_millisecs" => {
                self.stable_node_chains_prune_millisecs = number(MILLISECS)?;
            }
            "advisor_mode" => {
                self.advisor_mode = match value {
                    "none" => AdvisorMode::None,
                    "scan-time" => AdvisorMode::ScanTime,
                    _ => return Err(bad(key, value, "none or scan-time")),
                };
            }
            "advisor_max_cpu" => self.advisor_max_cpu = number(PER_CENT)?,
            "advisor_target_scan_time" => self.advisor_target_scan_time = number(SECONDS)?,
            "advisor_min_pages_to_scan" => self.advisor_min_pages_to_scan = number(PAGES)?,
            "advisor_max_pages_to_scan" => self.advisor_max_pages_to_scan = number(PAGES)?,
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn number(key: &'static str, value: &str, range: &RangeInclusive<u32>) -> Result<u32, KnobError> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| KnobError::out_of_range(key, value, range))
}

fn switch(key: &'static str, value: &str) -> Result<bool, KnobError> {
    match value {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err(bad(key, value, "0 or 1")),
    }
}

fn bad(key: &'static str, value: &str, allowed: &str) -> KnobError {
    KnobError::BadValue { key, value: value.to_owned(), allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knob_can_be_set_by_its_name_and_is_reported_under_it() {
        for name in NAMES {
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
        assert_eq!(json.as_object().unwrap().len(), NAMES.len());
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
        assert!(refused("pages_to_skip", "1").contains("there are: run, pages_to_scan"));
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
