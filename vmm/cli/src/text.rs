//! Text from elsewhere, as a terminal may have it.

use std::borrow::Cow;

/// The text with its control characters escaped, line breaks and what turns the direction of writing
/// among them: the name of a file must not be able to move the cursor, or pretend to be a message.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if is_control(character) {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

fn is_control(character: char) -> bool {
    // The second kind are those of bidirectional text and the separators of lines.
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert!(matches!(printable("Größe/図 \u{301}.img"), Cow::Borrowed(_)));
        for (text, want) in [
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nerror: b\r", "a\\nerror: b\\r"),
            ("\u{9b}1m\x07\x7f", "\\u{9b}1m\\u{7}\\u{7f}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
        ] {
            assert_eq!(printable(text), want);
        }
    }
}
