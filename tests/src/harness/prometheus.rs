//! Reading Prometheus text, strictly.
//!
//! Source: the Prometheus documentation, "Exposition formats", text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of a text, every one of a metric that was announced with its type and help before
/// it, and none twice.
pub fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let (mut helps, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut samples: Vec<Sample> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(helps.insert(name.to_owned()), "twice: {line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
        } else {
            let sample = sample(line).unwrap_or_else(|| panic!("not a sample: {line}"));
            assert!(helps.contains(&sample.name), "no help: {line}");
            let kind = types.get(&sample.name).unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(kind == "counter", sample.name.ends_with("_total"), "{line}");
            let is_new = samples
                .iter()
                .all(|one| (&one.name, &one.labels) != (&sample.name, &sample.labels));
            assert!(is_new, "twice: {line}");
            samples.push(sample);
        }
    }
    samples
}

/// The value of the one sample with this name and, if any is given, this label.
pub fn value(samples: &[Sample], name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    let is_it = |sample: &&Sample| {
        sample.name == name
            && label.is_none_or(|(key, value)| {
                sample.labels.get(key).is_some_and(|found| found == value)
            })
    };
    let mut found = samples.iter().filter(is_it);
    let value = found.next()?.value;
    assert!(found.next().is_none(), "more than one {name}");
    Some(value)
}

/// `name{key="value",…} value`.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, self::labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    is_name(name).then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in text.split(',') {
        let (key, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        is_name(key).then_some(())?;
        labels.insert(key.to_owned(), value.to_owned()).is_none().then_some(())?;
    }
    Some(labels)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_names_labels_and_values() {
        let samples = parse("# HELP a_b Some.\n# TYPE a_b gauge\na_b{vm=\"1\"} 2.5\na_b 3\n");
        assert_eq!(value(&samples, "a_b", Some(("vm", "1"))), Some(2.5));
        assert_eq!(samples.len(), 2);
        assert_eq!(value(&samples, "c", None), None);
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for line in ["a", "a b", "1a 2", "a{vm=1} 2", "a{vm=\"1\" 2", "a{} 2", "a-b 2"] {
            assert_eq!(sample(line), None, "{line}");
        }
    }
}
