use super::verification::{Wrong, verify};
use super::*;
use crate::analyze::census;
use crate::analyze::keys::Keys;

/// Four pages a row: common, own, zero, and one that is common but elsewhere.
fn image(number: u8) -> (tempfile::NamedTempFile, Vec<u8>) {
    let mut bytes = Vec::new();
    for row in 0..64_u8 {
        for fill in [[row, 1], [row, number + 10], [0, 0], [row ^ number, 2]] {
            bytes.extend_from_slice(&fill.repeat(PAGE_SIZE / 2));
        }
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &bytes).expect("written");
    (file, bytes)
}

#[test]
fn images_are_folded_to_the_last_page_and_read_as_before() {
    let files: Vec<_> = (0..3).map(image).collect();
    let images: Vec<Image> =
        files.iter().map(|(file, _)| Image::open(file.path()).expect("an image")).collect();
    let census = census::take(&images, &Progress::hidden()).expect("a census");
    let fold = fold(&images, &census).expect("a fold");
    assert!(fold.verified);
    assert_eq!(fold.saved_pages, census.total.saveable_pages);
    assert_eq!(fold.first_difference, None);
}

/// An image with its keys and its memory.
fn loaded() -> (tempfile::NamedTempFile, Image, Keys, Arc<AnonymousMemory>) {
    let (file, _) = image(0);
    let image = Image::open(file.path()).expect("an image");
    let keys = Keys::of(&image, &Progress::hidden()).expect("keys");
    let memory = load(&image, &keys, &Progress::hidden()).expect("loaded");
    (file, image, keys, memory)
}

const AT: u64 = 5 * PAGE_SIZE as u64 + 7;

fn write(file: &tempfile::NamedTempFile, offset: u64) {
    use std::os::unix::fs::FileExt;
    file.as_file().write_all_at(&[0xee], offset).expect("written");
}

#[test]
fn a_wrong_byte_in_memory_is_found_whatever_the_image_does() {
    let (file, image, keys, memory) = loaded();
    let verify = || verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
    assert_eq!(verify(), None);
    memory.write(5 * PAGE_SIZE + 7, &[0xee]);
    assert_eq!(verify(), Some(Wrong::Memory(AT)));
    // Now both are wrong, and alike; and another byte of the image comes before.
    write(&file, AT);
    write(&file, 9);
    assert_eq!(verify(), Some(Wrong::Memory(5 * PAGE_SIZE as u64)));
}

#[test]
fn an_image_that_changes_after_loading_is_no_wrong_byte_in_memory() {
    let (file, image, keys, memory) = loaded();
    write(&file, AT);
    let found = verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
    assert_eq!(found, Some(Wrong::Image(AT)));
    let (images, memories) = ([image], [memory]);
    let failure = verify_all(&images, &memories, &[keys], &Progress::hidden()).unwrap_err();
    let text = failure.to_string();
    let path = file.path().display().to_string();
    assert!(text.contains(&format!("{path} changed at byte {AT} while")), "{text}");
    assert_eq!(failure.code(), 1);
}

#[test]
fn a_wrong_byte_is_reported_whatever_the_name_of_its_image() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
    std::fs::write(&path, [7; PAGE_SIZE]).expect("written");
    let image = Image::open(&path).expect("an image");
    let keys = Keys::of(&image, &Progress::hidden()).expect("keys");
    let memory = load(&image, &keys, &Progress::hidden()).expect("loaded");
    memory.write(3, &[0xee]);
    let found = verify_all(&[image], &[memory], &[keys], &Progress::hidden()).expect("read");
    let json = serde_json::to_string(&found).expect("JSON");
    assert!(json.ends_with("\u{fffd}\",\"offset_bytes\":3}"), "{json}");
}

#[test]
fn an_image_that_changes_between_counting_and_loading_is_named() {
    let (file, image, keys, _) = loaded();
    write(&file, AT);
    let text = load(&image, &keys, &Progress::hidden()).unwrap_err().to_string();
    assert!(text.contains(&format!("changed at byte {} while", AT - 7)), "{text}");
}

#[test]
fn what_is_a_hole_in_memory_too_is_verified_without_being_read() {
    use std::os::unix::fs::FileExt;
    // A file system in memory, which has holes of single pages.
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
    file.as_file().set_len((1 << 20) * PAGE_SIZE as u64).expect("a length");
    for page in [5, 1 << 19] {
        file.as_file().write_all_at(&[7; PAGE_SIZE], page * PAGE_SIZE as u64).expect("written");
    }
    let image = Image::open(file.path()).expect("an image");
    let keys = Keys::of(&image, &Progress::hidden()).expect("keys");
    let memory = load(&image, &keys, &Progress::hidden()).expect("loaded");
    let verify = || verify(&image, &memory, &keys, &Progress::hidden()).expect("read");
    assert_eq!(verify(), None);
    // Whatever is read is there from then on.
    assert_eq!(memory.touched_pages().expect("a page map"), [5..6, 1 << 19..(1 << 19) + 1]);
    // What has come to be there where nothing is to be is found.
    memory.write(77 * PAGE_SIZE + 3, &[0]);
    assert_eq!(verify(), None);
    memory.write(77 * PAGE_SIZE + 3, &[1]);
    assert_eq!(verify(), Some(Wrong::Memory(77 * PAGE_SIZE as u64 + 3)));
}

#[test]
fn what_became_a_hole_of_the_image_is_a_change_and_must_be_in_memory_all_the_same() {
    let (file, image, keys, memory) = loaded();
    file.as_file().set_len(0).expect("a length");
    file.as_file().set_len(u64::from(image.page_count()) * PAGE_SIZE as u64).expect("a length");
    let verify = |memory| verify(&image, memory, &keys, &Progress::hidden()).expect("read");
    assert!(matches!(verify(&memory), Some(Wrong::Image(_))));
    // Nothing is there, and nothing must not pass for what was counted.
    let empty = AnonymousMemory::new(image.page_count()).expect("memory");
    assert!(matches!(verify(&empty), Some(Wrong::Memory(_))));
}
