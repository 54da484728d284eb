//! KSM's settings, and how they were before.

use std::fmt;
use std::path::Path;

use super::others::find_other;
use super::{Counters, KSM, KsmError, read};

/// What is changed, in the order in which it can be: `pages_to_scan` cannot while the advisor is at
/// work.
const CHANGED: [&str; 4] = ["advisor_mode", "pages_to_scan", "sleep_millisecs", "use_zero_pages"];

/// The settings are ours: while this lives nobody else is expected to use KSM, and when it is
/// dropped, be it in a panic, pages are unmerged and every setting is what it was before.
///
/// Only SIGKILL prevents that; what [`Display`](fmt::Display) prints is then what to do by hand.
#[derive(Debug)]
pub struct Knobs {
    before: Vec<(&'static str, String)>,
    run_before: String,
}

impl Knobs {
    /// Takes hold of them, with ksmd stopped and nothing merged.
    ///
    /// # Errors
    ///
    /// When there is no KSM, it is in use, or this is not root; nothing was changed.
    pub fn take() -> Result<Self, KsmError> {
        if !Path::new(KSM).exists() {
            return Err(KsmError::Absent);
        }
        if let Some(other) = find_other(&Counters::read()?) {
            return Err(KsmError::InUse(other));
        }
        let mut before = Vec::new();
        for name in CHANGED {
            before.push((name, selected(&read(&Path::new(KSM).join(name))?).to_owned()));
        }
        let run_before = read(&Path::new(KSM).join("run"))?;
        // The first write: refused to anybody but root, before anything is different.
        write("run", &run_before)?;
        let knobs = Self { before, run_before };
        knobs.unmerge()?;
        Ok(knobs)
    }

    /// Has ksmd, while it runs, read `page_count` pages at a time without ever pausing.
    ///
    /// # Errors
    ///
    /// The kernel's; some may be set.
    pub fn set_flat_out(&self, page_count: u64) -> Result<(), KsmError> {
        write("advisor_mode", "none")?;
        write("pages_to_scan", &page_count.to_string())?;
        write("sleep_millisecs", "0")?;
        write("use_zero_pages", "1")
    }

    /// Starts ksmd.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn start(&self) -> Result<(), KsmError> {
        write("run", "1")
    }

    /// Unmerges everything and stops ksmd, which first comes to the end of its scan.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn unmerge(&self) -> Result<(), KsmError> {
        write("run", "2")?;
        write("run", "0")
    }

    /// The settings as they were, by name.
    pub fn before(&self) -> impl Iterator<Item = (&str, &str)> {
        let run = ("run", self.run_before.as_str());
        self.before.iter().map(|(name, value)| (*name, value.as_str())).chain([run])
    }
}

/// As commands of a shell that put everything back.
impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cd {KSM}; echo 2 > run")?;
        for (name, value) in self.before.iter().rev() {
            write!(f, "; echo {value} > {name}")?;
        }
        write!(f, "; echo {} > run", self.run_before)
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        let mut failures: Vec<KsmError> = self.unmerge().err().into_iter().collect();
        // Backwards: the advisor sets `pages_to_scan` itself once it is back at work.
        for (name, value) in self.before.iter().rev() {
            failures.extend(write(name, value).err());
        }
        failures.extend(write("run", &self.run_before).err());
        if !failures.is_empty() {
            // There is nobody to return it to, and a person has to know.
            #[expect(clippy::print_stderr, reason = "a machine is left changed")]
            {
                eprintln!("KSM's settings could not all be put back; do this: {self}");
            }
        }
    }
}

fn write(name: &str, value: &str) -> Result<(), KsmError> {
    let path = Path::new(KSM).join(name);
    std::fs::write(&path, value).map_err(|source| KsmError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

/// The value of a setting: where several are listed, the one in brackets.
fn selected(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_setting_is_the_one_in_brackets() {
        assert_eq!(selected("[none] scan-time"), "none");
        assert_eq!(selected("none [scan-time]"), "scan-time");
        assert_eq!(selected("100"), "100");
    }
}
