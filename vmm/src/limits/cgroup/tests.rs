//! Control groups of every layout, made up.

use super::*;

const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const HYBRID: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:1 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/cpu\\040time rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn paths(membership: &str, mounts: &str, controller: &str) -> Vec<String> {
    find_groups(membership, mounts, controller)
        .into_iter()
        .map(|group| group.path.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_group_on_the_way_up_is_found_with_version_2() {
    let groups = find_groups("0::/outer/inner\n", V2, "memory");
    assert!(groups.iter().all(|group| group.version == Version::Two));
    assert_eq!(
        paths("0::/outer/inner\n", V2, "memory"),
        ["/sys/fs/cgroup/outer/inner", "/sys/fs/cgroup/outer", "/sys/fs/cgroup"]
    );
}

#[test]
fn a_hybrid_has_groups_of_both_versions() {
    let membership = "9:name=systemd:/s\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d\n";
    assert_eq!(
        paths(membership, HYBRID, "memory"),
        [
            "/sys/fs/cgroup/memory/a/b",
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/unified/d",
            "/sys/fs/cgroup/unified",
        ]
    );
    assert_eq!(
        paths("1:cpu,cpuacct:/c\n", HYBRID, "cpuacct"),
        ["/sys/fs/cgroup/cpu time/c", "/sys/fs/cgroup/cpu time"]
    );
}

#[test]
fn a_container_sees_its_groups_where_they_are_mounted() {
    // Without a namespace of its own: the path is the host's, and so is the mount's root.
    let mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    assert_eq!(
        paths("4:memory:/docker/1/deep\n", mounts, "memory"),
        ["/sys/fs/cgroup/memory/deep", "/sys/fs/cgroup/memory"]
    );
    // Outside of what is mounted.
    assert_eq!(paths("4:memory:/other\n", mounts, "memory"), ["/sys/fs/cgroup/memory"]);
    assert_eq!(paths("0::/../other\n", V2, "memory"), ["/sys/fs/cgroup"]);
}

#[test]
fn nonsense_and_nothing_have_no_groups() {
    for (membership, mounts) in
        [("", V2), ("0::/a\n", ""), ("x\n4:memory\n:::\n", HYBRID), ("0::/a\n", "1 2 - cgroup2\n")]
    {
        assert_eq!(paths(membership, mounts, "memory"), [""; 0], "{membership:?} {mounts:?}");
    }
    let (tree, _files) = Tree::made_up(&[]);
    assert_eq!(groups(&tree, "memory"), []);
}

#[test]
fn memory_is_read_from_the_files_of_each_version() {
    let (tree, _files) = Tree::made_up(&[
        ("/one/memory.limit_in_bytes", "1000\n"),
        ("/one/memory.usage_in_bytes", "800\n"),
        (
            "/one/memory.stat",
            "cache 1\ninactive_file 7\ntotal_dirty 5\ntotal_inactive_file 100\ntotal_active_file 20\n",
        ),
        ("/none/memory.limit_in_bytes", "9223372036854771712\n"),
        ("/none/memory.usage_in_bytes", "5\n"),
        ("/two/memory.max", "2000\n"),
        ("/two/memory.current", "50\n"),
        ("/two/memory.stat", "file 70\ninactive_file 60\nactive_file 10\n"),
        ("/free/memory.max", "max\n"),
        ("/free/memory.current", "5\n"),
    ]);
    let memory = |path: &str, version| {
        let group = ControlGroup { path: path.into(), version };
        group
            .memory(&tree)
            .map(|memory| (memory.max_bytes, memory.current_bytes, memory.cache_bytes))
    };
    assert_eq!(memory("/one", Version::One), Some((1000, 800, 115)));
    assert_eq!(memory("/two", Version::Two), Some((2000, 50, 50)));
    assert_eq!(memory("/none", Version::One), None);
    assert_eq!(memory("/free", Version::Two), None);
    assert_eq!(memory("/missing", Version::Two), None);
}

#[test]
fn threads_are_read_and_max_is_no_limit() {
    let (tree, _files) = Tree::made_up(&[
        ("/a/pids.max", "20\n"),
        ("/a/pids.current", "7\n"),
        ("/a/pids.events", "max 3\n"),
        ("/b/pids.max", "max\n"),
        ("/b/pids.current", "7\n"),
    ]);
    let group = |path: &str| ControlGroup { path: path.into(), version: Version::One };
    assert_eq!(group("/a").threads(&tree), Some(GroupThreads { max: 20, current: 7 }));
    assert_eq!(group("/a").threads_refused(&tree), 3);
    assert_eq!((group("/b").threads(&tree), group("/b").threads_refused(&tree)), (None, 0));
}
