//! A setting of the machine that is changed for a while.

use std::fs;
use std::path::PathBuf;
use std::thread;

/// Puts a setting back when it is dropped.
pub(crate) struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Changes a setting.
    ///
    /// # Errors
    ///
    /// Why that is not possible here.
    pub(crate) fn change(path: &str, value: &str) -> Result<Self, String> {
        let changed = fs::read_to_string(path).and_then(|before| {
            fs::write(path, value)?;
            Ok(before)
        });
        let refused = |error| format!("{path} cannot be set to {value}: {error}");
        let before = changed.map_err(refused)?;
        Ok(Self { path: path.into(), before: chosen(&before).to_owned() })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let put_back = fs::write(&self.path, &self.before);
        assert!(put_back.is_ok() || thread::panicking(), "{}: {put_back:?}", self.path.display());
    }
}

/// What is chosen in a list like `always [madvise] never`, or all of it if it is no such list.
fn chosen(setting: &str) -> &str {
    let inside = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(setting.trim(), |(chosen, _)| chosen)
}
