//! Knobs as they are typed and as they are shown.

use std::str::FromStr;

use pagefold_dedup::Knobs;
use pagefold_dedup::knobs::{KNOB_NAMES, KNOBS};
use serde_json::Value;

use super::failure::Failure;

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
}

/// Text that sets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a setting is KEY=VALUE, as in pages_to_scan=1000")]
pub(super) struct SettingError;

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, value) = text.split_once('=').ok_or(SettingError)?;
        if key.is_empty() {
            return Err(SettingError);
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Verifies that no key is there twice.
pub(super) fn check_distinct(settings: &[Setting]) -> Result<(), Failure> {
    for (position, setting) in settings.iter().enumerate() {
        if settings[..position].iter().any(|other| other.key == setting.key) {
            let what = format!("{} is there twice", setting.key);
            return Err(Failure::usage(what, "set each of them once"));
        }
    }
    Ok(())
}

/// The default knobs with some that are set.
pub(super) fn knobs_with(settings: &[Setting]) -> Result<Knobs, Failure> {
    check_distinct(settings)?;
    let mut knobs = Knobs::default();
    let changes = settings.iter().map(|setting| (&*setting.key, &*setting.value));
    knobs.set_all(changes).map_err(|error| refused(&error))?;
    Ok(knobs)
}

/// Verifies that each knob exists and may have its value, as far as that can be known without
/// knowing the others.
pub(super) fn check_each(settings: &[Setting]) -> Result<(), Failure> {
    check_distinct(settings)?;
    settings.iter().try_for_each(|Setting { key, value }| {
        Knobs::default().set(key, value).map_err(|error| refused(&error))
    })
}

fn refused(error: &pagefold_dedup::KnobError) -> Failure {
    Failure::usage(error.to_string(), "`pagefold set --help` lists all knobs and what they may be")
}

/// Every knob's name and value, as they can be typed.
pub(super) fn values(knobs: &Knobs) -> Vec<(&'static str, String)> {
    // Knobs are an object of numbers and names, so nothing is ever left out.
    let json = serde_json::to_value(knobs).unwrap_or_default();
    let text = |name: &&'static str| match json.get(name)? {
        Value::String(text) => Some((*name, text.clone())),
        other => Some((*name, other.to_string())),
    };
    KNOB_NAMES.iter().filter_map(text).collect()
}

/// Every knob, what it does, what it may be, and what it is by default.
pub(super) fn help() -> String {
    let defaults = values(&Knobs::default());
    let lines = KNOBS.iter().zip(defaults).map(|(knob, (_, default))| {
        format!("  {}\n      {}: {} [default: {default}]\n", knob.name, knob.meaning, knob.kind)
    });
    let lines: String = lines.collect();
    format!(
        "Knobs, which have KSM's names (Documentation/admin-guide/mm/ksm.rst of the kernel):\n{lines}\n\
         Numbers are decimal, or hexadecimal with 0x, and may end in K, M or G, which are binary.\n\
         With --vm: dedup=off, dedup=zero or dedup=on."
    )
}

/// The knobs that differ: name, value before, value after.
pub(super) fn differences(before: &Knobs, after: &Knobs) -> Vec<(&'static str, String, String)> {
    let pairs = values(before).into_iter().zip(values(after));
    let differ = pairs.filter(|(before, after)| before != after);
    differ.map(|((name, before), (_, after))| (name, before, after)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> Vec<Setting> {
        texts.iter().map(|text| text.parse().expect("a setting")).collect()
    }

    #[test]
    fn every_knob_is_shown_as_it_is_typed() {
        let values = values(&Knobs::default());
        assert_eq!(values.len(), KNOB_NAMES.len());
        for (name, value) in values {
            Knobs::default().set(name, &value).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn the_help_has_every_knob_with_its_range_and_default() {
        let help = help();
        for (name, default) in values(&Knobs::default()) {
            let knob = help.split(&format!("\n  {name}\n")).nth(1).expect(name);
            let line = knob.lines().next().expect(name);
            let allowed = Knobs::default().set(name, "?").expect_err("refused").to_string();
            let allowed = allowed.strip_prefix(&format!("{name} is ")).expect("what is allowed");
            assert!(line.contains(allowed.trim_end_matches(", not '?'")), "{line}: {allowed}");
            assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let after = knobs_with(&settings(&["run=2", "smart_scan=0", "pages_to_scan=16384"]));
        let differences = differences(&Knobs::default(), &after.expect("knobs"));
        let expected = [("run", "1", "2"), ("smart_scan", "1", "0")];
        assert_eq!(
            differences,
            expected.map(|(name, one, other)| (name, one.into(), other.into()))
        );
    }

    #[test]
    fn the_order_of_settings_does_not_matter_and_none_is_there_twice() {
        for texts in [
            ["advisor_min_pages_to_scan=40000", "advisor_max_pages_to_scan=50000"],
            ["advisor_max_pages_to_scan=50000", "advisor_min_pages_to_scan=40000"],
        ] {
            knobs_with(&settings(&texts)).expect("knobs");
        }
        for texts in [
            &["run=1", "run=1"][..],
            &["run=3"],
            &["walk=1"],
            &["advisor_min_pages_to_scan=40000"],
            &["pages_to_scan=1", "advisor_mode=scan-time"],
        ] {
            assert_eq!(knobs_with(&settings(texts)).expect_err("refused").code(), 2, "{texts:?}");
        }
        assert_eq!("run".parse::<Setting>(), Err(SettingError));
        assert_eq!("=1".parse::<Setting>(), Err(SettingError));
    }
}
