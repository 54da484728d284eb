use std::format;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn tallies() -> impl Strategy<Value = Tally> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(writes, verifications, corrupt)| Tally {
        writes,
        verifications,
        corrupt,
    })
}

fn corruptions() -> impl Strategy<Value = Corruption> {
    (
        any::<u32>(),
        0u16..4096,
        any::<(u8, u8)>(),
        any::<u64>(),
        prop::sample::select(&ContentKind::ALL[..]),
        any::<u32>(),
    )
        .prop_map(|(page, offset, (want, got), gpa, kind, version)| Corruption {
            page,
            offset,
            want,
            got,
            gpa,
            kind,
            version,
        })
}

fn reports() -> impl Strategy<Value = Report<'static>> {
    prop_oneof![
        any::<u32>().prop_map(|pages| Report::Ready { pages }),
        tallies().prop_map(Report::Beat),
        tallies().prop_map(Report::Rest),
        tallies().prop_map(Report::Done),
        corruptions().prop_map(Report::Corrupt),
        Just(Report::Panic("src/main.rs:3: out of bounds")),
    ]
}

#[test]
fn lines_look_as_documented() {
    assert_eq!(
        Report::parse(
            b"CORRUPT page=17 offset=4 want=3f got=00 gpa=0x15f000 kind=common version=0\r"
        ),
        Report::Corrupt(Corruption {
            page: 17,
            offset: 4,
            want: 0x3f,
            got: 0,
            gpa: 0x15_f000,
            kind: ContentKind::Common,
            version: 0,
        })
    );
    assert_eq!(Report::parse(b"READY pages=15881"), Report::Ready { pages: 15_881 });
    assert_eq!(Report::Panic("why").to_string(), "PANIC why");
}

#[test]
fn nearly_right_lines_are_unknown() {
    for line in [
        "",
        "READY",
        "READY ",
        "READY pages=",
        "READY pages=+1",
        "READY pages=01",
        "READY pages=4294967296",
        "READY pages=1 ",
        "READY  pages=1",
        " READY pages=1",
        "ready pages=1",
        "READY pages=1 pages=1",
        "BEAT writes=1 verifications=2",
        "BEAT verifications=2 writes=1 corrupt=0",
        "BEAT writes=1 verifications=2 corrupt=18446744073709551616",
        "DONE writes=a verifications=2 corrupt=0",
        "CORRUPT page=1 offset=4096 want=00 got=01 gpa=0x0 kind=own version=0",
        "CORRUPT page=1 offset=1 want=0 got=01 gpa=0x0 kind=own version=0",
        "CORRUPT page=1 offset=1 want=+0 got=01 gpa=0x0 kind=own version=0",
        "CORRUPT page=1 offset=1 want=0A got=01 gpa=0x0 kind=own version=0",
        "CORRUPT page=1 offset=1 want=00 got=01 gpa=0x0 kind=red version=0",
        "CORRUPT page=1 offset=1 want=00 got=01",
        "PANIC",
    ] {
        assert_eq!(Report::parse(line.as_bytes()), Report::Unknown, "{line:?}");
    }
}

#[test]
fn a_panic_with_terminal_codes_is_unknown() {
    assert_eq!(Report::parse(b"PANIC \x1b[2J"), Report::Unknown);
    assert_eq!(Report::parse("PANIC caf\u{e9}".as_bytes()), Report::Unknown);
}

#[test]
fn an_endless_line_is_unknown() {
    let line = format!("PANIC {}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(Report::parse(line.as_bytes()), Report::Unknown);
}

proptest! {
    #[test]
    fn parse_undoes_display(report in reports()) {
        let line = report.to_string();
        prop_assert!(line.len() <= MAX_LINE_BYTES);
        prop_assert_eq!(Report::parse(line.as_bytes()), report);
    }

    #[test]
    fn parse_never_panics_on_garbage(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Report::parse(&line);
    }

    #[test]
    fn what_parses_from_a_damaged_line_is_what_it_would_print(
        report in reports(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut line: Vec<u8> = report.to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(line.len());
            line[at] = byte;
        }
        let parsed = Report::parse(&line);
        if parsed != Report::Unknown {
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            let printed = parsed.to_string();
            prop_assert_eq!(printed.as_bytes(), text);
        }
    }
}
