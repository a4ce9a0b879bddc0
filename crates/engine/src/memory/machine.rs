//! What memory this machine has left, and what this process holds.

use std::{fs, path::Path};

/// The share of the available memory that is left to other processes.
pub(crate) const RESERVE: f64 = 1.0 / 8.0;

/// Bytes that this process could still take before the system or its control groups run short; `None` if the system does
/// not tell.
pub fn available_memory() -> Option<u64> {
    let system = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(group_room(Path::new("/sys/fs/cgroup"), &groups).map_or(system, |room| room.min(system)))
}

/// Bytes of memory that this process holds now.
pub(crate) fn held() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The most memory, in bytes, that this process has held so far; `None` if the system does not tell.
pub fn peak_memory() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Whether zeroed memory is taken from the system only as it is written to, however much is reserved.
pub(crate) fn lazy() -> bool {
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let bounded = fs::read_to_string("/proc/self/limits").is_ok_and(|limits| {
        let space = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
        space.is_some_and(|space| space.split_whitespace().next() != Some("unlimited"))
    });
    !strict && !bounded
}

/// A field of a `/proc` file in kB, as bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Bytes that the memory control groups of this process leave it, version 1 or 2: the least over its own group and all above,
/// each with its limit minus what is in use and cannot be reclaimed. `None` without a limit.
fn group_room(root: &Path, groups: &str) -> Option<u64> {
    // hierarchy:controllers:path
    let rooms = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, files) = match controllers {
            "" => (root.to_path_buf(), ["memory.max", "memory.current", "inactive_file"]),
            _ if controllers.split(',').any(|c| c == "memory") => {
                let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
                (root.join("memory"), files)
            }
            _ => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        own.ancestors().take_while(|dir| dir.starts_with(&root)).filter_map(|dir| room_of(dir, files)).min()
    });
    rooms.min()
}

/// Bytes that one group leaves. `max`, or the largest number of version 1, means that there is no limit.
fn room_of(dir: &Path, [limit, usage, cached]: [&str; 3]) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number(limit).filter(|&limit| limit < 1 << 60)?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(number(usage)?.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_leave_the_least_of_their_ancestors() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let room = |groups: &str| group_room(root.path(), groups);
        assert_eq!(room("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "100\n");
        assert_eq!(room("0::/a/b\n"), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        write("a/memory.stat", "anon 5\ninactive_file 50\n");
        assert_eq!(room("0::/a/b\n"), Some(650));
        write("memory/job/memory.limit_in_bytes", "500\n");
        write("memory/job/memory.usage_in_bytes", "90\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.usage_in_bytes", "90\n");
        assert_eq!(room("5:cpu,memory:/job\n1:name=systemd:/\n"), Some(410));
        assert_eq!(room("5:cpu,memory:/job\n0::/a/b\n"), Some(410));
        assert_eq!(room("5:cpu:/job\n"), None);
    }

    #[test]
    fn fields_are_in_kilobytes() {
        assert_eq!(field("MemFree: 3 kB\nMemAvailable:   25 kB\n", "MemAvailable:"), Some(25 * 1024));
        assert_eq!(field("MemFree: 3 kB\n", "MemAvailable:"), None);
    }
}
