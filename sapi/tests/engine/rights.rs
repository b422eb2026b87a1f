//! What a worker is when it serves: its limits, its user, its root; and what happens
//! when it cannot become that. These need root.

use glasspool_abi::control::{Identity, Limits, PoolSpec};

use crate::harness::{Engine, pool};

/// Whether this runs as root; says so if not.
fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let mut out = std::io::stderr();
        let _gone = std::io::Write::write_all(&mut out, format!("skipped, needs root: {test}\n").as_bytes());
    }
    is_root
}

fn limited() -> Limits {
    Limits {
        files: Some(321),
        core: Some(4096),
        priority: Some(7),
        ..Limits::default()
    }
}

fn nobody() -> Option<Identity> {
    Some(Identity {
        uid: 65534,
        gid: 65533,
        groups: vec![65533, 12345],
    })
}

fn proc_file(pid: i32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("a process")
}

#[test]
fn a_worker_gets_its_limits_and_its_user() {
    if !is_root("a_worker_gets_its_limits_and_its_user") {
        return;
    }
    let mut engine = Engine::start(PoolSpec {
        limits: limited(),
        identity: nobody(),
        chdir: Some("/usr/lib".to_owned()),
        ..pool()
    });
    let worker = engine.spawn();
    let limits = proc_file(worker.pid, "limits");
    let line = |name: &str| {
        let line = limits.lines().find(|l| l.starts_with(name)).expect("a limit");
        let words = line[name.len()..].split_ascii_whitespace();
        words.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("Max open files"), ["321", "321"]);
    assert_eq!(line("Max core file size"), ["4096", "4096"]);
    let status = proc_file(worker.pid, "status");
    assert!(
        status.contains("\nUid:\t65534\t65534\t65534\t65534\n"),
        "{status}"
    );
    assert!(
        status.contains("\nGid:\t65533\t65533\t65533\t65533\n"),
        "{status}"
    );
    assert!(status.contains("\nGroups:\t12345 65533 \n"), "{status}");
    let stat = proc_file(worker.pid, "stat");
    let after_name: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    assert_eq!(after_name[16], "7", "nice: {stat}");
    let script = engine.script(
        "who.php",
        "<?php echo getcwd(), ' ', is_readable('/etc/shadow') ? 'r' : '-';",
    );
    let expected = format!("{} -", engine.folder.path().display());
    assert_eq!(engine.get(&script).body(), expected);
}

#[test]
fn a_worker_is_dumpable_when_asked() {
    if !is_root("a_worker_is_dumpable_when_asked") {
        return;
    }
    for (dumpable, owner) in [(false, 0), (true, 65534)] {
        let mut engine = Engine::start(PoolSpec {
            identity: nobody(),
            limits: Limits {
                dumpable,
                ..Limits::default()
            },
            ..pool()
        });
        let worker = engine.spawn();
        let about = std::fs::metadata(format!("/proc/{}/environ", worker.pid)).expect("a process");
        // proc(5): files of a process that is not dumpable belong to root.
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&about), owner);
    }
}

#[test]
fn a_chroot_is_left_for_nothing() {
    if !is_root("a_chroot_is_left_for_nothing") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::write(
        root.path().join("in.php"),
        "<?php echo implode(' ', scandir('/')), ' ', getcwd();",
    )
    .unwrap();
    let mut engine = Engine::start(PoolSpec {
        chroot: Some(root.path().display().to_string()),
        ..pool()
    });
    let _worker = engine.spawn();
    assert_eq!(
        engine.get(std::path::Path::new("/in.php")).body(),
        ". .. in.php /"
    );
}

/// A worker that cannot become what its pool asks says why, and is gone.
fn fails(spec: PoolSpec, reason: &str) {
    let mut engine = Engine::start(spec);
    let (worker, failure) = engine.try_spawn();
    assert_eq!(failure.as_deref(), Some(reason));
    assert_eq!(worker.wait().exit_status(), Some(70));
    let expected = format!("ERROR: [pool www] {reason}\nERROR: [pool www] child failed to initialize\n");
    assert_eq!(engine.log(), expected);
}

#[test]
fn a_worker_that_cannot_start_says_why() {
    fails(
        PoolSpec {
            chdir: Some("/nowhere".to_owned()),
            ..pool()
        },
        "failed to chdir(/nowhere): No such file or directory (2)",
    );
    if is_root("a_worker_that_cannot_start_says_why: chroot") {
        fails(
            PoolSpec {
                chroot: Some("/nowhere".to_owned()),
                ..pool()
            },
            "failed to chroot(/nowhere): No such file or directory (2)",
        );
    }
}

#[test]
fn a_hat_needs_apparmor() {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        // Then it depends on the machine's profiles what may be put on.
        return;
    }
    let mut engine = Engine::start(PoolSpec {
        limits: Limits {
            apparmor_hat: Some("a".to_owned()),
            ..Limits::default()
        },
        ..pool()
    });
    let (worker, failure) = engine.try_spawn();
    let failure = failure.expect("no AppArmor here");
    let expected = r#"failed to query apparmor confinement. Please check if "/proc/*/attr/current" is read and writeable.: "#;
    assert!(failure.starts_with(expected), "{failure}");
    assert_eq!(worker.wait().exit_status(), Some(70));
}

#[test]
fn limits_that_cannot_be_set_are_told_of() {
    let mut engine = Engine::start(PoolSpec {
        limits: Limits {
            files: Some(1 << 40),
            ..Limits::default()
        },
        ..pool()
    });
    let _worker = engine.spawn();
    assert_eq!(
        engine.log(),
        format!(
            "ERROR: [pool www] failed to set rlimit_files for this pool. Please check your system limits or decrease rlimit_files. setrlimit(RLIMIT_NOFILE, {}): Operation not permitted (1)\n",
            1u64 << 40
        )
    );
}
