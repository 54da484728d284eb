use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn error(path: &Path, is_readonly: bool) -> String {
    let error = RawImage::open(path, is_readonly).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

#[test]
fn what_is_no_disk_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    assert!(error(&path, true).contains("for reading: No such file"));
    assert!(error(folder.path(), true).contains("is a directory, and neither"));
    assert!(error(Path::new("/dev/null"), true).contains("is a character device"));
    for size in [0, 1, 511, 513] {
        fs::write(&path, vec![0; size]).unwrap();
        let error = error(&path, false);
        assert!(error.contains(&format!("has {size} bytes")), "{error}");
        assert!(error.contains("truncate -s %512"), "{error}");
    }
    fs::write(&path, [0; 512]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    // Root may.
    if File::options().write(true).open(&path).is_err() {
        assert!(error(&path, false).contains("for reading and writing: Permission denied"));
    }
    assert_eq!(RawImage::open(&path, true).unwrap().capacity_sectors(), 1);
}

#[test]
fn a_disk_that_is_written_has_one_user() {
    let file = file(1);
    let writer = RawImage::open(file.path(), false).unwrap();
    assert!(error(file.path(), false).contains("is in use"));
    assert!(error(file.path(), true).contains("readonly=on"));
    drop(writer);
    let readers = [true, true].map(|_| RawImage::open(file.path(), true).unwrap());
    assert!(error(file.path(), false).contains("is in use"));
    drop(readers);
    RawImage::open(file.path(), false).unwrap();
}

#[test]
fn zeroes_are_written_where_the_file_system_has_no_faster_way() {
    // A tmpfs has no FALLOC_FL_ZERO_RANGE, and a file system that has it ends the same.
    let mut file = NamedTempFile::new_in("/dev/shm").unwrap();
    file.write_all(&vec![7; 0x3_0000]).unwrap();
    let image = RawImage::open(file.path(), false).unwrap();
    image.write_zeroes(512, 0x2_0200, false).unwrap();
    let stored = fs::read(file.path()).unwrap();
    assert!(stored[512..0x2_0400].iter().all(|&byte| byte == 0));
    assert!(stored[..512].iter().chain(&stored[0x2_0400..]).all(|&byte| byte == 7));
}
