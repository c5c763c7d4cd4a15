//! How much memory the process may use, and how much is in use: by its cgroup (version 2 or 1), the machine, or a given
//! number.
//!
//! Invariants: what cannot be read counts as not bounded; a cgroup's use counts without the page cache that the kernel
//! gives up first.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes that the process may use, and where to read what is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meter {
    limit: u64,
    /// The cgroup whose bound that is; none: the process's own resident memory counts.
    cgroup: Option<Cgroup>,
}

/// A memory cgroup's files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cgroup {
    folder: PathBuf,
    names: &'static Names,
}

/// What the files are called.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: page cache that has not been used lately.
    inactive: &'static str,
}

static V2: Names = Names { limit: "memory.max", used: "memory.current", inactive: "inactive_file" };
static V1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", inactive: "total_inactive_file" };

impl Meter {
    /// A meter for `bytes_max`; 0: for what the process's cgroup or the machine allows.
    pub fn new(bytes_max: usize) -> Self {
        if bytes_max > 0 {
            return Self { limit: bytes_max as u64, cgroup: None };
        }
        let of_machine = machine_bytes();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        match tightest(&groups, Path::new("/sys/fs/cgroup")) {
            Some((limit, cgroup)) if limit < of_machine => Self { limit, cgroup: Some(cgroup) },
            _ => Self { limit: of_machine, cgroup: None },
        }
    }

    /// What may be used.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is in use; 0 if that cannot be read.
    pub fn used(&self) -> u64 {
        self.cgroup.as_ref().map_or_else(resident_bytes, Cgroup::used)
    }
}

impl Cgroup {
    fn limit(&self) -> Option<u64> {
        read_number(&self.folder.join(self.names.limit))
    }

    fn used(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.names.inactive)?.trim().parse().ok());
        let used = read_number(&self.folder.join(self.names.used)).unwrap_or(0);
        used.saturating_sub(inactive.unwrap_or(0))
    }
}

/// The tightest bound of the process's memory cgroup and those around it. `groups` is `/proc/self/cgroup`; in a container
/// its paths may be those outside, so the root of what is mounted counts too.
fn tightest(groups: &str, mounted: &Path) -> Option<(u64, Cgroup)> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => (mounted.to_owned(), &V2),
            named if named.split(',').any(|name| name == "memory") => (mounted.join("memory"), &V1),
            _ => continue,
        };
        let inner = root.join(path.trim_start_matches('/'));
        let around = inner.ancestors().take_while(|folder| folder.starts_with(&root)).map(Path::to_owned);
        folders.extend(around.map(|folder| Cgroup { folder, names }));
    }
    let bounded = folders.into_iter().filter_map(|cgroup| Some((cgroup.limit()?, cgroup)));
    bounded.min_by_key(|(limit, _)| *limit)
}

fn machine_bytes() -> u64 {
    // Without /proc one gibibyte is a guess that harms nobody.
    kib_of("/proc/meminfo", "MemTotal:").map_or(1 << 30, |kib| kib * 1024)
}

fn resident_bytes() -> u64 {
    kib_of("/proc/self/status", "VmRSS:").map_or(0, |kib| kib * 1024)
}

fn kib_of(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("ws-cluster-cgroup-{name}-{}", std::process::id()));
            for (file, text) in files {
                let path = folder.join(file);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(path, text).expect("a file");
            }
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_cgroup_around_the_process_counts() {
        let folder = Folder::new(
            "v2",
            &[
                ("memory.max", "max\n"),
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "700\n"),
                ("a/memory.stat", "anon 1\ninactive_file 200\nactive_file 3\n"),
                ("a/b/memory.max", "4000\n"),
            ],
        );
        let (limit, cgroup) = tightest("0::/a/b\n", &folder.0).expect("a bound");
        assert_eq!((limit, cgroup.used()), (1000, 500));
        assert_eq!(tightest("0::/else\n", &folder.0), None);
    }

    #[test]
    fn version_1_counts_too_and_in_a_container_the_root_of_what_is_mounted() {
        let folder = Folder::new(
            "v1",
            &[
                ("memory/memory.limit_in_bytes", "2048\n"),
                ("memory/memory.usage_in_bytes", "100\n"),
                ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 40\n"),
            ],
        );
        let (limit, cgroup) = tightest("5:cpu,memory:/docker/1234\n1:name=x:/\n", &folder.0).expect("a bound");
        assert_eq!((limit, cgroup.used()), (2048, 60));
    }

    #[test]
    fn a_given_bound_counts_the_process_alone() {
        let meter = Meter::new(1 << 30);
        assert_eq!((meter.limit(), meter.cgroup.is_none()), (1 << 30, true));
        assert!(meter.used() > 1 << 20, "{}", meter.used());
        assert!(Meter::new(0).limit() > 0);
    }
}
