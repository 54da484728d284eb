//! Prometheus' text format, version 0.0.4.
//!
//! Source: Prometheus' documentation, "Exposition formats".

use std::fmt::{Display, Write};

/// What a metric's values do over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow; the name ends in `_total`.
    Counter,
    /// They go up and down.
    Gauge,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric and adds its samples: label pairs and a value each.
    ///
    /// Samples that are `None` are left out, and with them a metric that has no others: what is not
    /// known has no series.
    pub(super) fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, String)>, Option<V>)>,
    ) {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let mut samples = samples
            .into_iter()
            .filter_map(|(labels, value)| value.map(|value| (labels, value)))
            .peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.line(format_args!(
            "# HELP {name} {}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        ));
        self.line(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in samples {
            self.line(format_args!("{name}{} {value}", LabelSet(&labels)));
        }
    }

    /// The finished page.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A String takes whatever is written.
        let _ = writeln!(self.text, "{line}");
    }
}

struct LabelSet<'a>(&'a [(&'a str, String)]);

impl Display for LabelSet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{before}{name}=\"{value}\"")?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Exposition::default();
        page.family(
            "pagefold_x",
            Kind::Gauge,
            "back\\slash",
            [(vec![("domain", "a\"b\\c\nd".to_owned()), ("vm", "1".to_owned())], Some(1))],
        );
        assert_eq!(
            page.into_text(),
            "# HELP pagefold_x back\\\\slash\n# TYPE pagefold_x gauge\n\
             pagefold_x{domain=\"a\\\"b\\\\c\\nd\",vm=\"1\"} 1\n"
        );
    }

    #[test]
    fn what_is_unknown_has_no_series() {
        let mut page = Exposition::default();
        page.family("pagefold_x", Kind::Gauge, "x", [(vec![], None::<u64>)]);
        assert_eq!(page.into_text(), "");
    }
}
