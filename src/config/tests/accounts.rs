//! Who a pool runs as, for root and for everybody else.

use super::super::{AccountLookup, Identity, LogLevel, SystemAccounts};
use super::{Fixture, pool_text};

fn as_root(lines: &str) -> Fixture {
    let mut fixture = Fixture::new(&pool_text(lines));
    fixture.euid_root = true;
    fixture
}

#[test]
fn root_needs_a_user_who_exists_and_is_not_root() {
    let table = [
        ("", "[php-fpm.conf:1] [pool www] user has not been defined"),
        (
            "user = nobody-here",
            "[php-fpm.conf:5] [pool www] cannot get uid for user 'nobody-here'",
        ),
        (
            "user = www-data\ngroup = none-here",
            "[php-fpm.conf:6] [pool www] cannot get gid for group 'none-here'",
        ),
        (
            "user = root",
            "[pool www] please specify user and group other than root",
        ),
        (
            "user = 0",
            "[pool www] please specify user and group other than root",
        ),
        (
            "user = www-data\ngroup = root",
            "[pool www] please specify user and group other than root",
        ),
    ];
    for (lines, expected) in table {
        let message = as_root(lines).refusal();
        assert!(message.contains(expected), "{lines}: {message}");
    }
    let pool = as_root("user = www-data\ngroup = 4")
        .load()
        .unwrap()
        .pools
        .remove(0);
    assert_eq!(
        (pool.user, pool.group),
        (Some(Identity::Name("www-data".into())), Some(Identity::Id(4)))
    );
}

#[test]
fn others_are_told_that_identities_are_ignored() {
    let fixture = Fixture::new(&pool_text("user = nobody-here\ngroup = none-here"));
    let notices = fixture.load().unwrap().notices;
    let texts: Vec<&str> = notices.iter().map(|notice| notice.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "[pool www] 'user' directive is ignored when FPM is not running as root",
            "[pool www] 'group' directive is ignored when FPM is not running as root",
        ]
    );
    assert!(notices.iter().all(|notice| notice.level == LogLevel::Notice));
}

#[test]
fn socket_owners_must_exist_for_unix_sockets_only() {
    let unix = |lines: &str| Fixture::new(&pool_text(&format!("listen = /run/x\n{lines}")));
    let table = [
        (
            "listen.owner = nobody-here",
            "[php-fpm.conf:6] [pool www] cannot get uid for user 'nobody-here'",
        ),
        (
            "listen.group = none-here",
            "[php-fpm.conf:6] [pool www] cannot get gid for group 'none-here'",
        ),
    ];
    for (lines, expected) in table {
        assert_eq!(unix(lines).refusal(), expected);
    }
    let pool = unix("listen.owner = 1234\nlisten.group = adm")
        .load()
        .unwrap()
        .pools
        .remove(0);
    assert_eq!(pool.socket_owner, Some(Identity::Id(1234)));
    assert_eq!(pool.socket_group, Some(Identity::Name("adm".into())));
    assert!(
        Fixture::new(&pool_text("listen.owner = nobody-here"))
            .load()
            .is_ok()
    );
}

#[test]
fn the_system_knows_root() {
    assert_eq!(SystemAccounts.user("root").map(|user| user.uid), Some(0));
    assert_eq!(SystemAccounts.user("no such user, surely"), None);
    assert_eq!(SystemAccounts.group("no such group, surely"), None);
}
