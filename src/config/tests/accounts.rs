//! Who a pool runs as, for root and for everybody else.

use super::super::{AccountLookup, Identity, LogLevel, SystemAccounts};
use super::{Fixture, pool_text};

fn as_root(lines: &str) -> Fixture {
    let mut fixture = Fixture::new(&pool_text(lines));
    fixture.euid_root = true;
    fixture
}

#[test]
fn a_pool_of_root_needs_a_user_unless_root_is_allowed() {
    let expected = [
        "Alert: [pool www] user has not been defined",
        "Error: [php-fpm.conf:1] add 'user = NAME', or start with -R",
        "Error: failed to post process the configuration",
        "Error: FPM initialization failed",
    ];
    assert_eq!(as_root("").lines(), expected);
    assert_eq!(as_root("user =").lines()[0], expected[0]);
    let mut fixture = as_root("");
    fixture.allow_root = true;
    let settings = fixture.test().unwrap();
    assert!(settings.start_notices.is_empty(), "{:?}", settings.start_notices);
}

#[test]
fn a_test_refuses_a_socket_path_that_a_start_would_cut() {
    let fixture = |length| Fixture::new(&pool_text(&format!("listen = {}", "/".repeat(length))));
    assert!(fixture(107).test().is_ok());
    assert!(fixture(108).load().is_ok());
    let lines = fixture(108).lines();
    let expected = format!(
        "Error: [pool www] cannot bind to UNIX socket '{}' as path is too long (found length: 108, maximal length: 107): File name too long (36)",
        "/".repeat(108)
    );
    let place = "Error: [php-fpm.conf:5] the mistake is here";
    assert_eq!(lines, [&*expected, place, "Error: FPM initialization failed"]);
}

#[test]
fn a_test_finds_names_that_nobody_has() {
    // php-fpm's own test compares the whole output for these two.
    let user = "Error: [pool www] cannot get uid for user 'nobody-here'";
    let group = "Error: [pool www] cannot get gid for group 'none-here'";
    let failed = "Error: FPM initialization failed";
    let whose = |directive: &str, line: u32| format!(": no such name ({directive} in php-fpm.conf:{line})");
    let table = [
        ("user = nobody-here", user.to_owned()),
        ("user = www-data\ngroup = none-here", group.to_owned()),
        (
            "listen.owner = nobody-here",
            user.to_owned() + &whose("listen.owner", 5),
        ),
        (
            "listen.group = none-here",
            group.to_owned() + &whose("listen.group", 5),
        ),
    ];
    for (lines, expected) in table {
        // Not only for root: php-fpm asks always.
        assert_eq!(
            Fixture::new(&pool_text(lines)).lines(),
            [&*expected, failed],
            "{lines}"
        );
        let with_user = format!(
            "{lines}\n{}",
            if lines.contains("user =") { "" } else { "user = 33" }
        );
        assert_eq!(as_root(&with_user).lines(), [&*expected, failed], "{lines}");
        assert!(
            as_root(&with_user).load().is_ok(),
            "a start finds it later: {lines}"
        );
    }
    assert!(
        Fixture::new(&pool_text(
            "user = 12345\ngroup = 1\nlisten.owner = 7\nlisten.group = 8"
        ))
        .test()
        .is_ok()
    );
}

#[test]
fn a_test_refuses_pools_of_root() {
    for lines in [
        "user = root",
        "user = 0",
        "user = www-data\ngroup = root",
        "user = 33\ngroup = 0",
    ] {
        let mut fixture = as_root(lines);
        let logged = fixture.lines();
        assert_eq!(
            logged[0],
            "Error: [pool www] please specify user and group other than root"
        );
        assert!(logged[1].ends_with("allowed is root only with -R"), "{logged:?}");
        fixture.allow_root = true;
        assert!(fixture.test().is_ok(), "{lines}");
        fixture.euid_root = false;
        fixture.allow_root = false;
        assert!(fixture.test().is_ok(), "{lines}");
    }
    let pool = as_root("user = www-data\ngroup = 4")
        .test()
        .unwrap()
        .pools
        .remove(0);
    assert_eq!(
        (pool.user, pool.group),
        (Some(Identity::Name("www-data".into())), Some(Identity::Id(4)))
    );
}

#[test]
fn others_are_told_at_the_start_what_is_ignored() {
    let lines = "user = nobody-here\ngroup = none-here\nchroot = /tmp\nprocess.priority = 3";
    let settings = Fixture::new(&pool_text(lines)).load().unwrap();
    let texts: Vec<&str> = settings
        .start_notices
        .iter()
        .map(|notice| notice.text.as_str())
        .collect();
    let ignored =
        |directive| format!("[pool www] '{directive}' directive is ignored when FPM is not running as root");
    assert_eq!(
        texts,
        ["user", "group", "chroot", "process.priority"].map(ignored)
    );
    let level = |notice: &super::super::Notice| notice.level == LogLevel::Notice;
    assert!(settings.start_notices.iter().all(level));
    assert!(settings.notices.is_empty(), "a test does not say it");
    assert_eq!(settings.pools[0].priority, None);
    let mut fixture = Fixture::new(&pool_text(lines));
    fixture.euid_root = true;
    let settings = fixture.load().unwrap();
    assert_eq!(
        (settings.start_notices.len(), settings.pools[0].priority),
        (0, Some(3))
    );
}

#[test]
fn the_system_knows_root() {
    assert_eq!(SystemAccounts.user("root").map(|user| user.uid), Some(0));
    assert_eq!(SystemAccounts.user("no such user, surely"), None);
    assert_eq!(SystemAccounts.group("no such group, surely"), None);
}
