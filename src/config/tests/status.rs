//! Pools that exist because of `pm.status_listen`.

use std::time::Duration;

use super::super::{ListenAddress, Pool, ProcessManager};
use super::{Fixture, pool_text, pool_with};

#[test]
fn a_status_listener_is_a_pool_of_its_own() {
    let lines = "pm.status_listen = 9001\npm.status_path = /status\nping.path = /ping\nuser = www-data\n\
                 env[A] = b\nphp_admin_value[memory_limit] = 8M\nsecurity.limit_extensions = .php5\nchdir = /tmp\n\
                 clear_env = no\nprocess.dumpable = yes\npm.max_requests = 5\naccess.suppress_path[] = /a\n\
                 request_terminate_timeout = 9s\nlisten.allowed_clients = 127.0.0.1";
    let settings = Fixture::new(&pool_text(&format!(
        "{lines}\n[b]\nlisten=1\npm=static\npm.max_children=1"
    )))
    .load()
    .unwrap();
    let names: Vec<&str> = settings.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["www", "b", "www_status"], "they come last");
    let (main, status) = (&settings.pools[0], &settings.pools[2]);
    assert_eq!(status.status_of.as_deref(), Some("www"));
    assert_eq!(status.listen, ListenAddress::TcpPort(9001));
    assert_eq!(status.max_children.get(), 2);
    let idle_timeout = Duration::from_secs(10);
    assert_eq!(status.manager, ProcessManager::OnDemand { idle_timeout });
    // All that it shares with the pool, and nothing else but defaults.
    let expected = Pool {
        name: status.name.clone(),
        listen: status.listen.clone(),
        status_of: status.status_of.clone(),
        max_children: status.max_children,
        manager: status.manager,
        max_requests: None,
        access_suppress: Vec::new(),
        ..main.clone()
    };
    assert_eq!(*status, expected);
    assert!(settings.dump().iter().all(|line| !line.contains("www_status")));
}

#[test]
fn a_listener_alone_serves_the_status_at_the_root() {
    assert_eq!(
        pool_with("pm.status_listen = 9001")
            .unwrap()
            .status_path
            .as_deref(),
        Some("/")
    );
    let pool = pool_with("pm.status_listen = 9001\npm.status_path = /").unwrap();
    assert_eq!(pool.status_path.as_deref(), Some("/"));
    assert_eq!(pool_with("").unwrap().status_path, None);
    assert_eq!(pool_with("pm.status_listen =").unwrap().status_path, None);
    let relative = pool_with("prefix = lib\npm.status_listen = s.sock");
    assert!(relative.is_ok());
}

#[test]
fn its_name_and_address_must_be_free() {
    let taken = pool_text("pm.status_listen = 9001\n[WWW_Status]\nlisten=1\npm=static\npm.max_children=1");
    assert_eq!(
        Fixture::new(&taken).lines()[..2],
        [
            "Error: [pool www] pm.status_listen needs the name 'www_status', which another pool has",
            "Error: [php-fpm.conf:5] found 'pm.status_listen = 9001'",
        ]
    );
    assert_eq!(
        Fixture::new(&pool_text("pm.status_listen = 9000")).lines()[..2],
        [
            "Error: [pool www_status] unable to set listen address as it's already used in another pool 'www'",
            "Error: [php-fpm.conf:5] found 'pm.status_listen = 9000', allowed is an address of its own for each pool",
        ]
    );
}
