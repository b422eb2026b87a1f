use glasspool_otel::slow::Waiting;
use glasspool_waits::record::Descriptor;

use super::super::tests::{poll, query};
use super::*;

#[test]
fn the_readers_words_stay_where_they_say_as_much() {
    let read = SlowEvent {
        wait: Some("poll on fd 4 -> tcp 127.0.0.1:3306".to_owned()),
        waiting: Waiting {
            alike: Some("poll on tcp 127.0.0.1:3306".to_owned()),
            class: Some("network"),
            so_far: None,
            syscall: Some("poll".to_owned()),
            peer: Some(Peer::default()),
            tcp: None,
            file: Some("/a/whole/path".to_owned()),
        },
        ..SlowEvent::default()
    };
    let mut event = read.clone();
    let wait = Wait {
        began_ns: 100,
        ..query(1, 1, 0)
    };
    complete(&mut event, &wait, 3_100, Duration::from_nanos(2_000));
    // No longer than the request.
    let so_far = Some(Duration::from_nanos(2_000));
    // That only the kernel knows.
    let tcp = Some(TcpState {
        state: "established",
        receive_queue: 0,
        send_queue: 0,
    });
    let expected = SlowEvent {
        waiting: Waiting {
            so_far,
            tcp,
            ..read.waiting
        },
        ..read
    };
    assert_eq!(event, expected);
}

#[test]
fn what_the_reader_could_not_see_is_filled_in() {
    let mut sleeping = SlowEvent {
        wait: Some("sleeping in ep_poll".to_owned()),
        ..SlowEvent::default()
    };
    let lock = Wait {
        cause: Cause::Disk,
        descriptor: Some(Descriptor {
            number: 5,
            kind: Kind::File {
                inode: 9,
                name: "cache.db".to_owned(),
            },
        }),
        ..query(1, 1, 0)
    };
    complete(&mut sleeping, &lock, u64::MAX, Duration::from_secs(3));
    let call = glasspool_probes::process::syscall_name(u64::from(poll())).expect("it has one");
    assert_eq!(sleeping.wait, Some(format!("{call} on fd 5 (cache.db)")));
    assert_eq!(sleeping.waiting.alike, Some(format!("{call} on cache.db")));
    assert_eq!(sleeping.waiting.class, Some("file"));
    assert_eq!(sleeping.waiting.file, None, "only the end of its path is known");
    let mut unread = SlowEvent {
        how: "failed: a test".to_owned(),
        ..SlowEvent::default()
    };
    let frames = complete_stack(&mut unread, &lock, 2).expect("there are frames");
    assert_eq!(frames.len(), 3);
    assert_eq!(
        unread.stacktrace,
        "#0 /srv/db.php(42): mysqli_query()\n#1 /srv/db.php(7): find()"
    );
    assert_eq!((unread.how.as_str(), unread.line), ("noted", Some(42)));
    assert_eq!(unread.missing.as_deref(), Some("read the stack itself: a test"));
}

#[test]
fn a_listening_socket_is_no_peer() {
    let mut wait = query(1, 1, 20);
    let socket = |state, peer: Address| Kind::Socket {
        peer: Some(peer),
        protocol: 6,
        tcp: Some(Tcp {
            state,
            receive_queue: 0,
            send_queue: 0,
        }),
    };
    let address = || Address::Ip("127.0.0.1:9000".parse().expect("an address"));
    for (state, expected) in [(10, None), (2, Some(9000))] {
        let kind = socket(state, address());
        wait.descriptor = Some(Descriptor { number: 4, kind });
        let span = span(&wait, 1);
        assert_eq!(span.peer.and_then(|peer| peer.port), expected);
        assert_eq!(span.tcp.map(|tcp| tcp.state), expected.map(|_| "syn_sent"));
    }
}

#[test]
fn who_asked_for_a_request_is_nobody_that_it_depends_on() {
    let own = Wait {
        own_connection: true,
        ..query(1, 1, 20)
    };
    let told = span(&own, 1);
    assert_eq!((told.peer, told.class), (None, "network"));
    assert_eq!(place(&own).with.as_deref(), Some("web server"));
    let mut event = SlowEvent::default();
    complete(&mut event, &own, own.began_ns, Duration::ZERO);
    assert_eq!(event.wait.as_deref(), Some("poll on fd 4 -> tcp web server"));
    // Also where the reader has taken it for one.
    event.wait = Some("poll on fd 4 -> tcp 10.0.3.7:51234".to_owned());
    event.waiting.peer = Some(Peer {
        address: "10.0.3.7".to_owned(),
        port: Some(51234),
        transport: Some("tcp".to_owned()),
    });
    complete(&mut event, &own, own.began_ns, Duration::ZERO);
    assert_eq!(event.wait.as_deref(), Some("poll on fd 4 -> tcp web server"));
    assert_eq!(event.waiting.alike.as_deref(), Some("poll on tcp web server"));
    assert_eq!(event.waiting.peer, None);
}
