//! What keeps the programs from being loaded, made real for a start: requests are answered
//! all the same; the log, a check and a metric say why there are none and what would help;
//! and nothing stays in the kernel.

use std::fs;

use glasspool_waits::Settings;
use rustix::process::Signal;

use super::stand::{Held, SERVING, Site, TRACED, checked, metric};
use crate::harness::{skipped, wait_until};
use crate::looks::stand::command;
use crate::prometheus::stand::free_port;

/// Refuses bpf(2) to all that it runs.
const REFUSE_BPF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/refuse-bpf");
/// The kernel's types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A shell that changes what is mounted, for itself and for all that it becomes.
fn mounted(change: &str) -> Vec<String> {
    let script = format!("{change} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"]
        .map(str::to_owned)
        .to_vec()
}

/// A site behind an obstacle that can be made here, by the command `through`, and where
/// nothing else is in the way; else that is noted. All of `says` is what a check tells.
fn checked_behind(through: &[&str], toml: &str, says: &[&str]) -> Option<Site> {
    let site = Site::new(toml)?;
    if let Err(reason) = glasspool_waits::load(&Settings::default()) {
        skipped(&format!("kernel programs, behind {}: {reason}", through[0]));
        return None;
    }
    let tried = command(through, "true").output().expect("starts");
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).into_owned();
        skipped(&format!("kernel programs, behind {}: {}", through[0], why.trim()));
        return None;
    }
    let line = checked(&site, through);
    assert!(line.contains("ebpf: auto, "), "{line}");
    told(&line, says);
    Some(site)
}

fn told(line: &str, says: &[&str]) {
    for part in says {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

/// Starts behind an obstacle, which the metric calls `name`.
fn serves_behind(through: &[&str], name: &str, says: &[&str]) {
    let address = free_port();
    let toml = format!("[metrics]\nlisten = \"{address}\"\n");
    let Some(site) = checked_behind(through, &toml, says) else {
        return;
    };
    let mut supervised = site.start(through, TRACED.1);
    let line = supervised.wait_for("ebpf: off (");
    told(&line, says);
    told(
        &line,
        &["NOTICE: ", "; spans tell how long requests waited for a CPU"],
    );
    supervised.wait_for(SERVING);
    for _ in 0..4 {
        assert_eq!(supervised.answers(), "slept");
    }
    wait_until(&format!("the rung's reason is {name}"), || {
        let rung = metric(address, "php_waits_rung", &format!("php_waits_reason=\"{name}\""));
        rung.is_some_and(|rung| rung < 3.0)
    });
    assert!(supervised.holds().is_nothing());
    let observer = supervised.children(Some("observer"))[0];
    assert!(Held::by(observer).is_nothing());
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
}

#[test]
fn a_seccomp_filter_that_refuses_bpf() {
    let says = ["a seccomp filter is active", "SystemCallFilter="];
    serves_behind(&[REFUSE_BPF], "seccomp", &says);
}

#[test]
fn a_kernel_that_does_not_tell_its_types() {
    let through = mounted("mount -t tmpfs none /sys/kernel/btf");
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let says = [BTF, "CONFIG_DEBUG_INFO_BTF", "/sys must be mounted"];
    serves_behind(&through, "no-btf", &says);
}

/// As before Linux 5.14, where `task_struct.__state` was `state`: what reads it cannot be
/// adapted, and the verifier refuses it.
#[test]
fn a_kernel_whose_types_are_others() {
    let Ok(mut types) = fs::read(BTF) else {
        return skipped(&format!("kernel programs, refused by the verifier: no {BTF}"));
    };
    let name = b"\0__state\0";
    let found = types.windows(name.len()).position(|bytes| bytes == name);
    let at = found.expect("the kernel has it");
    types[at..at + name.len()].copy_from_slice(b"\0_ustate\0");
    let folder = tempfile::tempdir().expect("a folder");
    let others = folder.path().join("vmlinux");
    fs::write(&others, types).expect("writes");
    let through = mounted(&format!("mount --bind '{}' {BTF}", others.display()));
    let through: Vec<&str> = through.iter().map(String::as_str).collect();
    let says = ["the kernel refuses a program, it is probably older than 5.15"];
    serves_behind(&through, "verifier", &says);
}

#[test]
fn one_of_two_capabilities() {
    if !rustix::process::geteuid().is_root() {
        return skipped("kernel programs, refused as capabilities: needs root");
    }
    let through = ["setpriv", "--bounding-set", "-perfmon,-sys_admin"];
    let says = ["CAP_PERFMON is missing", "AmbientCapabilities="];
    serves_behind(&through, "capabilities", &says);
}

/// Only a check: there are no other users to start a pool for.
#[test]
fn capabilities_of_a_user_namespace() {
    let through = ["unshare", "--user", "--map-root-user"];
    checked_behind(
        &through,
        "",
        &["in a user namespace no capability allows it", "rootless"],
    );
}
