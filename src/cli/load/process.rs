//! What a process costs, as Linux tells it under `/proc`.
//!
//! Read from outside, so that the router's own figures need not be believed.
//! Elsewhere there is no `/proc`: the figures are then absent, and the rest of a
//! measurement stands.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Ticks of `utime` and `stime` a second: `USER_HZ`, which is 100 on every
/// architecture that Linux gives user space (man page proc_pid_stat(5),
/// asm-generic/param.h).
const TICKS_PER_SECOND: u32 = 100;

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) now: u64,
    /// The most that was ever resident.
    pub(crate) most: u64,
}

/// Processor time that a process has used since its start, user and system.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A process's resident memory.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The type of the file system that a path is on (`ext4`, `tmpfs`): a store in
/// memory makes durability look free.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    parse_mounts(&fs::read_to_string("/proc/self/mounts").ok()?, &path)
}

/// Fields 14 and 15 of `stat`. The second field is the program's name in
/// parentheses and may itself hold spaces and parentheses, so that counting
/// begins after the last of those.
fn parse_stat(text: &str) -> Option<Duration> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs(user + system) / TICKS_PER_SECOND)
}

fn parse_status(text: &str) -> Option<Memory> {
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(number * 1024)
    };
    Some(Memory { now: kibibytes("VmRSS:")?, most: kibibytes("VmHWM:")? })
}

/// The longest mount point that the path is below; of equal ones the last,
/// because it covers the others.
fn parse_mounts(text: &str, path: &Path) -> Option<String> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            // A space in a mount point is written \040 (getmntent(3)).
            let point = fields.next()?.replace("\\040", " ");
            let kind = fields.next()?;
            path.starts_with(&point).then_some((point.len(), kind))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_program_name() {
        let rest = "S 1 2 3 0 -1 4194560 900 0 0 0 1234 66 0 0 20 0 9 0 55 1000 200";
        for name in ["pushyard", "a b", "x) (y"] {
            let stat = format!("42 ({name}) {rest}");
            assert_eq!(parse_stat(&stat), Some(Duration::from_millis(13_000)), "{name}");
        }
        assert_eq!(parse_stat("42 (pushyard) S 1"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tpushyard\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nThreads:\t9\n";
        let memory = parse_status(status).unwrap();
        assert_eq!((memory.now, memory.most), (10 << 20, 20 << 20));
        // A zombie has no memory lines.
        assert_eq!(parse_status("Name:\tpushyard\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn deepest_mount_point_names_the_file_system() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n\
                      /dev/vdb /tmp/my\\040disk xfs rw 0 0\n";
        let kind = |path: &str| parse_mounts(mounts, Path::new(path));
        assert_eq!(kind("/home/me").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/my disk/x").as_deref(), Some("xfs"));
        assert_eq!(kind("/tmpfoo").as_deref(), Some("ext4"));
    }
}
