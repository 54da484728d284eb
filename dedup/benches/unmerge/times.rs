//! How long things took, and how it is printed.

use std::time::Duration;

/// The time of things of one kind.
pub(crate) struct Times {
    pub(crate) what: &'static str,
    pub(crate) total: Duration,
    count: usize,
    longest: Duration,
    p99: Duration,
}

impl Times {
    pub(crate) fn of(what: &'static str, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            what,
            count: times.len(),
            total: times.iter().sum(),
            longest: times[times.len() - 1],
            p99: times[(times.len() - 1) * 99 / 100],
        }
    }

    /// Prints a row, or an object, about `pages` pages.
    pub(crate) fn print(&self, pages: u64, json: bool) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let mean = us(self.total) / self.count as f64;
        let (what, count, total) = (self.what, self.count, self.total.as_secs_f64());
        let (longest, p99) = (us(self.longest), us(self.p99));
        if json {
            println!(
                "{{\"what\":\"{what}\",\"pages\":{pages},\"count\":{count},\"total_s\":{total:.3},\
                 \"longest_us\":{longest:.1},\"p99_us\":{p99:.1},\"mean_us\":{mean:.1}}}"
            );
        } else {
            println!(
                "{what:<16}{pages:>12}{count:>9}{total:>10.3}{longest:>12.1}{p99:>11.1}{mean:>11.1}"
            );
        }
    }
}

pub(crate) fn print_head() {
    println!(
        "{:<16}{:>12}{:>9}{:>10}{:>12}{:>11}{:>11}",
        "what", "pages", "times", "total s", "longest us", "p99 us", "mean us"
    );
}
