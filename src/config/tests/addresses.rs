//! Where pools listen, and whom they let in.

use std::net::SocketAddr;

use super::super::{ListenAddress, LogLevel, Pool};
use super::{Fixture, pool_refusal, pool_text, pool_with};

fn pool(lines: &str) -> Pool {
    pool_with(lines).unwrap_or_else(|e| panic!("{lines}: {e}"))
}

#[test]
fn listen_forms() {
    let tcp = |text: &str| ListenAddress::Tcp(text.parse::<SocketAddr>().unwrap());
    let table = [
        ("9001", ListenAddress::TcpPort(9001)),
        ("65535", ListenAddress::TcpPort(65535)),
        ("127.0.0.1:9001", tcp("127.0.0.1:9001")),
        ("0.0.0.0:9001", tcp("0.0.0.0:9001")),
        ("[::1]:9001", tcp("[::1]:9001")),
        ("[::]:9001", tcp("[::]:9001")),
        (
            "/run/php/$pool.sock",
            ListenAddress::Unix("/run/php/www.sock".into()),
        ),
        ("php.sock", ListenAddress::Unix("/usr/php.sock".into())),
    ];
    for (text, expected) in table {
        assert_eq!(pool(&format!("listen = {text}")).listen, expected, "{text}");
    }
    let refused = [
        (
            "0",
            "[php-fpm.conf:5] invalid port value '0' (found 'listen = 0', allowed are 1 to 65535)",
        ),
        ("69002", "invalid port value '69002'"),
        ("127.0.0.1:69002", "invalid port value '69002'"),
        ("127.0.0.1:x", "invalid port value 'x'"),
        (
            "*:9000",
            "getaddrinfo: no such host; for every address give the port alone",
        ),
        (
            ":9000",
            "give the port alone (found 'listen = :9000', allowed are port, ip:port",
        ),
        ("no.such.host.invalid:9000", "getaddrinfo: "),
        ("/run/a:1", "the path contains ':'"),
        (
            "",
            "[php-fpm.conf:1] [pool www] no listen address have been defined!",
        ),
    ];
    for (text, expected) in refused {
        let message = pool_refusal(&format!("listen = {text}"));
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn an_address_that_lets_nobody_in_is_told() {
    let settings = Fixture::new(&pool_text("listen.allowed_clients = 127.0.0.1,10.0.0.0/8"))
        .load()
        .unwrap();
    let [notice] = settings.notices.as_slice() else {
        panic!("{:?}", settings.notices)
    };
    assert_eq!(notice.level, LogLevel::Warning);
    assert!(
        notice
            .text
            .starts_with("[pool www] '10.0.0.0/8' in listen.allowed_clients at "),
        "{notice:?}"
    );
}

#[test]
fn addresses_are_compared_by_what_they_mean() {
    let second = "[b]\nlisten = /run//x.sock\npm = static\npm.max_children = 1";
    let text = pool_text(&format!("listen = /run/x.sock\n{second}"));
    assert!(
        Fixture::new(&text)
            .refusal()
            .contains("already used in another pool 'www'")
    );
}
