//! What is done with a file that is already at the socket's path.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use tempfile::TempDir;

use super::{Fake, Served, names_in};
use crate::{ApiClient, ApiServer, BindError, SocketError};

fn refusal(path: &Path) -> SocketError {
    match ApiServer::bind(path, Arc::new(Fake::default())) {
        Err(BindError::Socket(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let served = Served::new();
    let mode = fs::metadata(served.server.path()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let Served { server, directory, .. } = served;
    server.stop();
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("api");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let server = ApiServer::bind(&path, Arc::new(Fake::default())).expect("a server");
    assert_eq!(names_in(directory.path()), [Path::new("api")]);
    drop(server);
}

#[test]
fn a_live_socket_is_left_alone() {
    let served = Served::new();
    let error = refusal(served.server.path());
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn a_listener_that_accepts_nobody_is_live_too() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("api");
    let _listener = UnixListener::bind(&path).expect("a socket");
    for _ in 0..3 {
        assert!(matches!(refusal(&path), SocketError::InUse { .. }));
    }
}

#[test]
fn other_files_are_never_replaced() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "precious").expect("a file");
    let link = directory.path().join("link");
    symlink("file", &link).expect("a link");
    let far_link = directory.path().join("far link");
    symlink(directory.path(), &far_link).expect("a link");
    for path in [&file, &link, &far_link, &directory.path().to_owned()] {
        let error = refusal(path);
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("a file"), "precious");
    assert!(link.is_symlink() && far_link.is_symlink());
}

#[test]
fn a_link_to_a_socket_is_as_good_as_the_socket() {
    let directory = TempDir::new().expect("a directory");
    let (link, target) = (directory.path().join("link"), directory.path().join("api"));
    symlink("link too", &link).expect("a link");
    symlink(&target, directory.path().join("link too")).expect("a link");
    // To nothing, to a stale socket, and to one that is served.
    drop(ApiServer::bind(&link, Arc::new(Fake::default())).expect("a server"));
    assert!(!target.exists() && link.is_symlink());
    drop(UnixListener::bind(&target).expect("a socket"));
    let server = ApiServer::bind(&link, Arc::new(Fake::default())).expect("a server");
    assert!(matches!(refusal(&link), SocketError::InUse { .. }));
    for path in [&link, &target] {
        assert!(ApiClient::new(path).expect("a client").dedup().is_ok());
    }
    drop(server);
    assert!(!target.exists() && link.is_symlink());

    let circle = directory.path().join("circle");
    symlink("circle", &circle).expect("a link");
    let error = refusal(&circle);
    assert!(error.to_string().starts_with("cannot follow the link"), "{error}");
}

#[test]
fn a_socket_that_took_its_place_is_not_removed() {
    let served = Served::new();
    fs::remove_file(served.server.path()).expect("removed");
    let _other = UnixListener::bind(served.server.path()).expect("a socket");
    let path = served.server.path().to_owned();
    drop(served.server);
    assert!(path.exists());
}

#[test]
fn paths_that_no_socket_can_have_are_refused() {
    let directory = TempDir::new().expect("a directory");
    let long = directory.path().join("x".repeat(108));
    assert!(matches!(refusal(&long), SocketError::PathTooLong { len_bytes: 109.., .. }));
    assert!(matches!(refusal(Path::new("")), SocketError::BadPath { .. }));
    assert!(matches!(refusal(Path::new("/tmp/\0")), SocketError::BadPath { .. }));
    let missing = directory.path().join("missing/api");
    let error = refusal(&missing);
    assert!(error.to_string().starts_with("cannot open the directory"), "{error}");
}

#[test]
fn whoever_may_open_the_directory_holds_up_nobody() {
    let directory = TempDir::new().expect("a directory");
    let held = File::open(directory.path()).expect("a directory");
    held.lock().expect("a lock");
    let path = directory.path().join("api");
    drop(ApiServer::bind(&path, Arc::new(Fake::default())).expect("a server"));
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn many_starters_get_their_sockets_and_of_those_at_one_path_one_does() {
    let directory = TempDir::new().expect("a directory");
    let paths = (0..40).map(|number| {
        directory.path().join(if number < 20 { format!("api{number}") } else { "one".to_owned() })
    });
    // What the killed have left.
    drop(UnixListener::bind(directory.path().join("one")).expect("a socket"));
    let all = Arc::new(Barrier::new(40));
    let starters: Vec<_> = paths
        .map(|path| {
            let all = Arc::clone(&all);
            thread::spawn(move || {
                all.wait();
                ApiServer::bind(&path, Arc::new(Fake::default()))
            })
        })
        .collect();
    let results: Vec<_> =
        starters.into_iter().map(|starter| starter.join().expect("no panic")).collect();
    for result in &results[..20] {
        assert!(result.is_ok(), "{result:?}");
    }
    let (served, refused): (Vec<_>, Vec<_>) = results[20..].iter().partition(|one| one.is_ok());
    assert_eq!(served.len(), 1, "{served:?}");
    for result in refused {
        let in_use = matches!(result, Err(BindError::Socket(SocketError::InUse { .. })));
        assert!(in_use, "{result:?}");
    }
    assert_eq!(names_in(directory.path()).len(), 21);
    drop(results);
    assert!(names_in(directory.path()).is_empty());
}
