//! Plain tables.

use std::fmt::Write;

/// Rows under headings, every column as wide as its widest cell; the first column is flush left and
/// the others flush right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, headings.iter().copied());
    for row in rows {
        line(&mut text, &widths, row.iter().map(String::as_str));
    }
    text
}

fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    for (index, (cell, width)) in cells.zip(widths.iter().copied()).enumerate() {
        // A String takes whatever is written.
        let _ = if index == 0 {
            write!(text, "{cell:<width$}")
        } else {
            write!(text, "  {cell:>width$}")
        };
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// A list of names and values, the values flush left.
pub(super) fn list(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<width$}  {value}");
        text
    })
}

/// A count, or `?` for one that is not known.
pub(super) fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// A share in per cent with one digit; `-` of nothing.
pub(super) fn per_cent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    let tenths = (part * 1000 + whole / 2) / whole;
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "23".to_owned()]];
        assert_eq!(table(&["id", "n"], &rows), "id    n\na     1\nbcd  23\n");
        assert_eq!(list(&[("a", "1".to_owned()), ("bc", "2".to_owned())]), "a   1\nbc  2\n");
    }

    #[test]
    fn shares_are_rounded() {
        assert_eq!(per_cent(1, 3), "33.3 %");
        assert_eq!(per_cent(2, 3), "66.7 %");
        assert_eq!(per_cent(5, 5), "100.0 %");
        assert_eq!(per_cent(0, 0), "-");
        assert_eq!(per_cent(u64::MAX, u64::MAX), "100.0 %");
    }
}
