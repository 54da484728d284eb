//! Pages that the kernel's ksmd has merged.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/ksm.rst`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use vmm_sys_util::signal::{block_signal, unblock_signal};

use crate::pages::{COUNT, PAIRS, Pages};
use crate::sys;

const KSM: &str = "/sys/kernel/mm/ksm";

const SETTINGS: [(&str, u32); 2] = [("pages_to_scan", COUNT), ("sleep_millisecs", 0)];

/// At work, it sets `pages_to_scan` itself and lets nobody else: off before the settings above are
/// changed, and back on after them. Kernels before Linux 6.8 have none.
const ADVISOR: &str = "advisor_mode";

/// What is 0 while KSM knows of no page.
const COUNTERS: [&str; 5] =
    ["pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "ksm_zero_pages"];

/// How often the counters are looked at, and how long ksmd may take.
const LOOK: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(20);

/// The machine's one ksmd, ours for as long as this lives. When it is dropped, be it in a panic,
/// everything is unmerged and every setting is what it was before. What would end the process
/// waits until then; only SIGKILL does not.
pub(crate) struct Ksmd {
    /// Settings in the order in which they can be put back.
    before: Vec<(&'static str, String)>,
    // Behind all others: `drop` comes first, then the fields in this order.
    _signals: SignalsHeld,
}

impl Ksmd {
    /// Takes hold of it, stopped and with nothing merged.
    ///
    /// # Errors
    ///
    /// Why it cannot be had; everything is as it was.
    pub(crate) fn take() -> Result<Self, String> {
        if !Path::new(KSM).exists() {
            return Err(format!("this kernel has no KSM: there is no {KSM}"));
        }
        let cannot_read = |error: io::Error| format!("cannot read a setting in {KSM}: {error}");
        for name in COUNTERS {
            let value = read(name).map_err(cannot_read)?;
            if value != "0" {
                return Err(format!("KSM is in use by others: {name} is {value}"));
            }
        }
        if let Some(pid) = find_user() {
            return Err(format!("KSM is in use by others: process {pid} has mergeable memory"));
        }
        let mut before = Vec::new();
        for name in SETTINGS.map(|(name, _)| name) {
            before.push((name, read(name).map_err(cannot_read)?));
        }
        if Path::new(KSM).join(ADVISOR).exists() {
            before.push((ADVISOR, selected(&read(ADVISOR).map_err(cannot_read)?).to_owned()));
        }
        before.push(("run", read("run").map_err(cannot_read)?));
        let signals = SignalsHeld::new();
        // Refused to anybody but root, before anything is different.
        write("run", "0")
            .map_err(|error| format!("cannot set {KSM}/run; only root may: {error}"))?;
        let ksmd = Self { before, _signals: signals };
        ksmd.set_flat_out()
            .map_err(|error| format!("cannot change a setting in {KSM}: {error}"))?;
        Ok(ksmd)
    }

    /// Has it, once it runs, read all pages at a time without ever pausing.
    fn set_flat_out(&self) -> io::Result<()> {
        if self.before.iter().any(|&(name, _)| name == ADVISOR) {
            write(ADVISOR, "none")?;
        }
        SETTINGS.into_iter().try_for_each(|(name, value)| write(name, &value.to_string()))
    }

    /// Has ksmd merge fresh pages in pairs, stops it, and returns the time of the writes to them
    /// all.
    pub(crate) fn measure(self) -> Duration {
        let pages = Pages::filled(|page| page % PAIRS);
        sys::advise(&pages.memory, libc::MADV_MERGEABLE).unwrap();
        write("run", "1").unwrap();
        wait_until_merged();
        write("run", "0").unwrap();
        assert_eq!(mapped_kib(), u64::from(COUNT) * 4, "KSM's pages in this process, in KiB");

        let time = pages.write_all();

        assert_eq!(mapped_kib(), 0, "KSM's pages in this process, in KiB");
        // Memory first, so that there is nothing left to copy.
        drop(pages);
        drop(self);
        time
    }

    /// As commands of a shell.
    fn put_back_by_hand(&self) -> String {
        let mut commands = format!("cd {KSM}; echo 2 > run; echo 0 > run");
        for (name, value) in &self.before {
            commands.extend(["; echo ", value, " > ", name]);
        }
        commands
    }
}

impl Drop for Ksmd {
    fn drop(&mut self) {
        let mut done = write("run", "2").is_ok();
        done &= write("run", "0").is_ok();
        for (name, value) in &self.before {
            done &= write(name, value).is_ok();
        }
        if !done {
            #[expect(clippy::print_stderr, reason = "a machine is left changed")]
            {
                let by_hand = self.put_back_by_hand();
                eprintln!("KSM's settings could not all be put back; do this: {by_hand}");
            }
        }
    }
}

/// Signals that end a process wait while this lives: threads made meanwhile hold them up too, those
/// made before must not exist.
struct SignalsHeld(Vec<libc::c_int>);

impl SignalsHeld {
    fn new() -> Self {
        let mut signals = vec![libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
        // What whoever started us has blocked stays so.
        signals.retain(|&signal| block_signal(signal).is_ok());
        Self(signals)
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        for &signal in &self.0 {
            // Cannot fail for the signals that could be blocked; if it did, they would wait on.
            let _ = unblock_signal(signal);
        }
    }
}

/// KSM tells of nothing by itself, so it is asked again and again.
fn wait_until_merged() {
    let expected = (PAIRS.to_string(), PAIRS.to_string());
    let began = Instant::now();
    loop {
        let merged = (read("pages_shared").unwrap(), read("pages_sharing").unwrap());
        if merged == expected {
            return;
        }
        assert!(began.elapsed() < LIMIT, "pages_shared, pages_sharing: {merged:?} after {LIMIT:?}");
        std::thread::sleep(LOOK);
    }
}

/// KSM's pages that this process maps, by its page tables: those that a write has broken are not
/// among them, even while ksmd has not noticed.
fn mapped_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("KSM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")).unwrap().parse().unwrap()
}

/// A process that has given memory to ksmd.
fn find_user() -> Option<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("ksm_stat")).ok()?;
        let uses = stat.lines().any(|line| match line.split_once(' ') {
            Some(("ksm_rmap_items", items)) => items != "0",
            Some(("ksm_mergeable:" | "ksm_merge_any:", answer)) => answer == "yes",
            _ => false,
        });
        uses.then_some(pid)
    })
}

fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(Path::new(KSM).join(name))?.trim_end().to_owned())
}

fn write(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new(KSM).join(name), value)
}

/// The value of a setting: where several are listed, the one in brackets.
fn selected(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(name, _)| name)
}
