//! Reads where this program runs, for the resource of telemetry. Once, at the start: small
//! files below /proc and /etc, each of which may be missing.

use std::io::Read;
use std::path::Path;

use glasspool_otel::resource::Surroundings;

/// Longer files are not those that are meant; `mountinfo` of a host with a thousand
/// containers stays below.
const MAX_BYTES: u64 = 1 << 20;

/// What can be read by whoever this process has become.
pub(super) fn read() -> Surroundings {
    let supervisor = rustix::process::getppid();
    Surroundings {
        cgroup: text("/proc/self/cgroup"),
        mountinfo: text("/proc/self/mountinfo"),
        machine_id: Some(text("/etc/machine-id"))
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| text("/var/lib/dbus/machine-id")),
        os_release: text("/etc/os-release"),
        machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
        namespace: text("/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        supervisor_pid: supervisor.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
        owner: supervisor.and_then(|pid| owner(pid.as_raw_nonzero().get())),
    }
}

/// The user that a process runs as, by name; this one has given its own up.
fn owner(pid: i32) -> Option<String> {
    let status = text(format!("/proc/{pid}/status"));
    // Real, effective, saved, of the file system (proc(5)).
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let effective: u32 = uids.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(effective));
    user.ok()?.map(|user| user.name)
}

/// Empty if it is not there, or no text.
fn text(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_or_else(|_| String::new(), |_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told() {
        let found = read();
        assert!(!found.machine.is_empty() && found.os_release.contains("ID="));
        assert!(found.mountinfo.contains(" / "), "{}", found.mountinfo);
        assert_eq!(found.supervisor_pid, Some(std::os::unix::process::parent_id()));
        let own = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
        let own = nix::unistd::Uid::from_raw(own.expect("exists"));
        let name = nix::unistd::User::from_uid(own)
            .expect("reads")
            .expect("has a name")
            .name;
        assert_eq!(owner(std::process::id().cast_signed()), Some(name));
    }
}
