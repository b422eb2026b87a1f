use super::trying::judge;
use super::*;

const ROOT: &str = "CapEff:\t000001fffeffffff\nSeccomp:\t0\n";
const ROOT_IN_A_FILTER: &str = "CapEff:\t000001fffeffffff\nSeccomp:\t2\n";
const NOBODY: &str = "CapEff:\t0000000000000000\nSeccomp:\t0\n";
const ONLY_BPF: &str = "CapEff:\t0000008000000000\nSeccomp:\t0\n";
const BOTH: &str = "CapEff:\t000000c000000000\nSeccomp:\t0\n";

const ALL_USERS: &str = "         0          0 4294967295\n";

fn judged(what: &'static str, code: i32, status: &str, lockdown: &str) -> Unavailable {
    let error = io::Error::from_raw_os_error(code);
    judge(what, &error, status, lockdown, ALL_USERS)
}

fn judged_in_a_namespace(what: &'static str, code: i32, status: &str) -> Unavailable {
    let error = io::Error::from_raw_os_error(code);
    let users = "         0       1000          1\n         1     100000      65536\n";
    judge(what, &error, status, "", users)
}

#[test]
fn each_obstacle_has_its_reason_and_its_remedy() {
    let map = "load the programs' maps";
    let program = "load a program";
    let cases = [
        (
            judged(map, libc::EPERM, NOBODY, ""),
            "capabilities",
            "CAP_BPF and CAP_PERFMON are missing",
        ),
        (
            judged(program, libc::EPERM, ONLY_BPF, ""),
            "capabilities",
            "CAP_PERFMON is missing",
        ),
        (
            judged(map, libc::EPERM, ROOT_IN_A_FILTER, ""),
            "seccomp",
            "must allow bpf(2)",
        ),
        (
            judged_in_a_namespace(map, libc::EPERM, ROOT_IN_A_FILTER),
            "user-namespace",
            "rootless",
        ),
        (
            judged_in_a_namespace(map, libc::EPERM, NOBODY),
            "user-namespace",
            "no capability allows it",
        ),
        (judged_in_a_namespace(map, libc::ENOMEM, ROOT), "memory", "fewer"),
        (
            judged(map, libc::ENOSYS, ROOT_IN_A_FILTER, ""),
            "seccomp",
            "must allow bpf(2)",
        ),
        (
            judged(map, libc::ENOSYS, ROOT, ""),
            "no-bpf",
            "CONFIG_BPF_SYSCALL",
        ),
        (
            judged(program, libc::EPERM, BOTH, "none integrity [confidentiality]\n"),
            "lockdown",
            "locked down",
        ),
        (
            judged(program, libc::EINVAL, ROOT, ""),
            "verifier",
            "older than 5.15",
        ),
        (judged(program, libc::EACCES, ROOT, ""), "verifier", "refuses"),
        (judged(map, libc::ENOMEM, ROOT, ""), "memory", "fewer slots"),
        (
            judged(map, libc::EPERM, BOTH, "[none]"),
            "other",
            "cannot load the programs' maps",
        ),
        (Unavailable::NotBuilt, "not-built", "clang"),
        (Unavailable::PageSize(65536), "page-size", "65536"),
    ];
    for (reason, name, says) in cases {
        assert_eq!(reason.name(), name, "{reason}");
        assert!(reason.to_string().contains(says), "{reason}");
    }
}

#[test]
fn rungs_are_in_order_and_counters_of_zeros_are_none() {
    assert!(Rung::Full > Rung::Reader && Rung::Reader > Rung::SelfReport);
    assert!(counts("5 0 3\n") && !counts("0 0 0\n") && !counts(""));
    let own = Pid(i32::try_from(std::process::id()).unwrap());
    assert_eq!(Rung::without_programs(own), Rung::Reader);
    assert_eq!(Rung::without_programs(Pid(i32::MAX)), Rung::Nothing);
}
