//! `kill -9` at any moment leaves nothing behind but the file of the socket, and that is replaced
//! by the next start.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use pagefold_tests::harness::command::Running;
use pagefold_tests::harness::http;
use pagefold_tests::harness::proc::{orphaned_shmem_bytes, processes, stores, users_of_store};
use tempfile::TempDir;

/// Enough memory to be seen if it stayed.
const GUESTS: [&str; 4] = ["-n", "3", "--memory", "64M"];

/// Waits for a moment in the life of a run with a socket.
type Wait = fn(&mut Running, &Path);

#[test]
fn a_killed_process_leaves_a_socket_file_and_nothing_else() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let shmem_before = orphaned_shmem_bytes();
    let mut held_bytes = 0;
    // Each start finds the socket of the one before it.
    let moments: [(&str, Wait); 6] = [
        ("as soon as there is a socket", |running, _| {
            running.wait_for_line("control socket at");
        }),
        ("while the guests fill their memory", |running, _| {
            running.wait_for_line("VMs are running");
        }),
        ("when the first guest is ready", |running, _| {
            running.wait_for_line("prints READY");
        }),
        ("while folding is at work", |running, socket| {
            for _ in 0..3 {
                drop(running.wait_for_line("prints READY"));
            }
            // Answered after the pass in which the time is over.
            http::request(socket, "POST", "/v1/dedup/settle", "{\"timeout_ms\": 400}");
        }),
        ("while somebody waits for folding to settle", |running, socket| {
            for _ in 0..3 {
                drop(running.wait_for_line("prints READY"));
            }
            let _waiting = http::begin(socket, "POST", "/v1/dedup/settle");
        }),
        ("when all is folded", |running, socket| {
            for _ in 0..3 {
                drop(running.wait_for_line("prints READY"));
            }
            http::request(socket, "POST", "/v1/dedup/settle", "");
        }),
    ];
    for (when, wait) in moments {
        let mut running = start(&socket);
        wait(&mut running, &socket);
        held_bytes += kill_and_look(running, &socket, when);
    }
    // And where no event is: the moment itself is what varies here.
    for delay_ms in [3, 19, 71, 230, 467] {
        let mut running = start(&socket);
        running.wait_for_line("control socket at");
        thread::sleep(Duration::from_millis(delay_ms));
        held_bytes += kill_and_look(running, &socket, &format!("{delay_ms} ms after its socket"));
    }
    assert!(held_bytes > 30 << 20, "only {held_bytes} bytes were ever at stake");
    let shmem_after = orphaned_shmem_bytes();
    println!("{held_bytes} bytes of stores killed; without owner {shmem_before} → {shmem_after}");
    assert!(shmem_after < shmem_before + held_bytes / 2, "{shmem_before} → {shmem_after}");

    let args = ["run", "--memory", "8M", "--for", "1s", "--settle", "--json", "--api-socket"];
    let last = Running::start(&[&args[..], &[socket.to_str().expect("UTF-8")]].concat()).end();
    assert_eq!(last.status.code(), Some(0), "{last:?}");
    assert!(last.stderr.iter().any(|line| line.contains("replacing the stale socket")), "{last:?}");
    assert!(!socket.exists());
}

fn start(socket: &Path) -> Running {
    let socket = socket.to_str().expect("a path in UTF-8");
    Running::start(&[&["run", "--json", "--api-socket", socket][..], &GUESTS].concat())
}

/// Kills it, asserts that nothing is left of it, and returns what its stores held.
fn kill_and_look(running: Running, socket: &Path, when: &str) -> u64 {
    assert_eq!(running.children(), [] as [String; 0], "{when}: it has children");
    let (pid, stores) = (running.pid(), stores(running.pid()));
    let ended = running.kill();
    assert_eq!(ended.status.code(), None, "{when}: it ended by itself: {ended:?}");
    assert!(ended.stdout.is_empty(), "{when}: {ended:?}");
    assert!(!processes().contains(&pid), "{when}");
    for store in &stores {
        assert_eq!(users_of_store(store.inode), [] as [u32; 0], "{when}: somebody has its store");
    }
    let directory = socket.parent().expect("a folder");
    let left: Vec<_> = fs::read_dir(directory)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry"))
        .collect();
    assert_eq!(left.len(), 1, "{when}: {left:?}");
    assert!(left[0].file_type().expect("a type").is_socket(), "{when}: {left:?}");
    stores.iter().map(|store| store.held_bytes).sum()
}
