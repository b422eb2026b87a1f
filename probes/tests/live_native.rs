//! Real PHP processes blocked in everything that makes requests slow: each look names
//! the builtin, the system call, the descriptor and the peer, and none is noticed.
//!
//! Needs the `php` command line of PHP 8.2, which `make deps` installs, on x86_64.

#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

#[path = "live/build.rs"]
mod build;
#[path = "live_native/database.rs"]
mod database;
#[path = "live/mod.rs"]
mod live;
#[path = "live_native/rights.rs"]
mod rights;
#[path = "live_native/stacks.rs"]
mod stacks;
#[path = "live_native/stops.rs"]
mod stops;
#[path = "live_native/target.rs"]
mod target;

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use glasspool_probes::process;
use glasspool_probes::wait::{Class, Endpoint, Kind, Purpose};
use rustix::fs::{FlockOperation, flock};

use database::Database;
use target::{Moment, PATIENCE, Php, fd, skipped};

/// The look is whole: the native stack ends in the program's entry, the builtin was
/// found in it by its handler, and nothing is missing.
fn judge(look: &Moment, builtin: &str) {
    assert_eq!(look.php.frames[0].qualified_name(), builtin, "{look:#?}");
    let handler = look.native.frames.iter().find(|frame| frame.builtin.is_some());
    let handler = handler.unwrap_or_else(|| panic!("no handler: {look:#?}"));
    assert_eq!(handler.builtin, Some((0, builtin.to_owned())));
    assert_eq!(handler.function(), format!("zif:{builtin}"));
    assert_eq!(look.native.end.to_string(), "the stack is whole", "{look:#?}");
    assert_eq!(look.wait.missing, []);
}

#[test]
fn sleep_and_usleep_name_the_time_and_how_much_of_it_is_over() {
    for (script, builtin) in [("sleep(60)", "sleep"), ("usleep(60000000)", "usleep")] {
        let Some(mut php) = Php::start(&format!("<?php echo \"ready\\n\"; {script};")) else {
            return;
        };
        let began = Instant::now();
        let look = php.look_in(&["clock_nanosleep"]);
        judge(&look, builtin);
        assert_eq!(look.wait.to_string(), "clock_nanosleep");
        assert_eq!(look.wait.class(), Class::Sleep);
        assert_eq!(
            look.wait.call.as_ref().unwrap().limit,
            Some(Duration::from_secs(60))
        );
        let Some(first) = process::asleep_for(php.pid) else {
            skipped("this kernel does not tell when a task last ran");
            continue;
        };
        let mut later = first;
        while began.elapsed() < Duration::from_millis(200) {
            later = process::asleep_for(php.pid).unwrap();
        }
        // Both were taken between `began` and now, not long after the one and before the
        // other.
        let passed = later.saturating_sub(first);
        assert!(passed <= began.elapsed(), "{first:?} {later:?}");
        assert!(passed >= Duration::from_millis(50), "{first:?} {later:?}");
    }
}

#[test]
fn a_slow_http_server_is_named_by_address_and_port() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let script = format!("<?php echo \"ready\\n\"; file_get_contents('http://{address}/slow');");
    let Some(mut php) = Php::start(&script) else {
        return;
    };
    let (_connection, client) = server.accept().unwrap();
    let look = php.look_in(&["poll"]);
    assert_eq!(
        look.wait.to_string(),
        format!("poll on fd {} -> tcp {address}", fd(&look))
    );
    assert_eq!(look.wait.class(), Class::Network);
    let call = look.wait.call.as_ref().unwrap();
    let socket = call.socket().unwrap();
    assert_eq!(socket.local, Some(Endpoint::Ip(client)));
    assert_eq!(call.peer().unwrap().address().as_deref(), Some("127.0.0.1"));
    assert_eq!(call.peer().unwrap().port(), Some(address.port()));
    assert!(call.limit.is_some(), "default_socket_timeout");
    judge(&look, "file_get_contents");
}

#[test]
fn a_lock_that_somebody_else_holds_is_named_by_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    flock(file.as_file(), FlockOperation::LockExclusive).unwrap();
    let path = file.path().to_str().unwrap();
    let script = format!("<?php $f = fopen('{path}', 'r+'); echo \"ready\\n\"; flock($f, LOCK_SH);");
    let Some(mut php) = Php::start(&script) else {
        return;
    };
    let look = php.look_in(&["flock"]);
    judge(&look, "flock");
    assert_eq!(
        look.wait.to_string(),
        format!("flock on fd {} ({path})", fd(&look))
    );
    assert_eq!(
        look.wait.call.as_ref().unwrap().purpose,
        Purpose::Lock { exclusive: false }
    );
    assert_eq!(look.wait.class(), Class::Lock);
    flock(file.as_file(), FlockOperation::Unlock).unwrap();
    php.finish();
}

#[test]
fn a_child_that_says_nothing_is_a_pipe() {
    // The child reads the script's input and ends with it.
    let scripts = [
        ("shell_exec('exec cat');", "shell_exec"),
        (
            "$p = proc_open('exec cat', [1 => ['pipe', 'w']], $pipes); fread($pipes[1], 10);",
            "fread",
        ),
    ];
    for (script, builtin) in scripts {
        let Some(mut php) = Php::start(&format!("<?php echo \"ready\\n\"; {script}")) else {
            return;
        };
        let look = php.look_in(&["read"]);
        judge(&look, builtin);
        assert_eq!(look.wait.to_string(), format!("read on fd {} (pipe)", fd(&look)));
        assert_eq!(look.wait.class(), Class::Pipe);
    }
}

#[test]
fn a_child_that_does_not_end_is_waited_for() {
    let script = "<?php $p = proc_open('exec cat', [1 => ['file', '/dev/null', 'w']], $pipes);
echo \"ready\\n\"; proc_close($p);";
    let Some(mut php) = Php::start(script) else { return };
    let look = php.look_in(&["wait4", "waitid"]);
    judge(&look, "proc_close");
    assert!(
        matches!(look.wait.call.as_ref().unwrap().purpose, Purpose::Child(Some(_))),
        "{look:?}"
    );
    assert_eq!(look.wait.class(), Class::Child);
}

/// A stop would make this call fail with EINTR (signal(7)).
#[test]
fn a_timed_receive_ends_exactly_as_it_does_without_us() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let script = format!(
        "<?php
$s = socket_create(AF_INET, SOCK_DGRAM, SOL_UDP);
socket_connect($s, '127.0.0.1', {port});
socket_set_option($s, SOL_SOCKET, SO_RCVTIMEO, ['sec' => 2, 'usec' => 0]);
echo \"ready\\n\";
$began = microtime(true);
$got = @socket_recv($s, $data, 100, 0);
printf(\"%s %s %d\", var_export($got, true), socket_strerror(socket_last_error($s)),
    round(microtime(true) - $began));"
    );
    let Some(mut php) = Php::start(&script) else {
        return;
    };
    let look = php.look_in(&["recvfrom"]);
    judge(&look, "socket_recv");
    assert_eq!(
        look.wait.to_string(),
        format!("recvfrom on fd {} -> udp 127.0.0.1:{port}", fd(&look))
    );
    assert_eq!(look.wait.call.unwrap().limit, Some(Duration::from_secs(2)));
    let mut looks = 0;
    while php
        .look()
        .is_some_and(|look| look.wait.call.unwrap().name == Some("recvfrom"))
    {
        looks += 1;
    }
    assert!(looks > 100, "{looks} looks in two seconds");
    assert_eq!(php.finish(), "false Resource temporarily unavailable 2");
}

#[test]
fn a_select_names_all_it_waits_for() {
    let script = "<?php
$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$read = [STDIN, $pair[0]]; $none = null;
echo \"ready\\n\"; stream_select($read, $none, $none, 90);";
    let Some(mut php) = Php::start(script) else { return };
    let look = php.look_in(&["pselect6", "select"]);
    judge(&look, "stream_select");
    let call = look.wait.call.as_ref().unwrap();
    assert_eq!(call.limit, Some(Duration::from_secs(90)));
    let kinds: Vec<&Kind> = call
        .descriptors
        .iter()
        .map(|descriptor| &descriptor.kind)
        .collect();
    assert!(matches!(kinds[..], [Kind::Pipe, Kind::Socket(_)]), "{kinds:?}");
    assert_eq!(call.descriptors[0].number, 0);
}

#[test]
fn a_disk_that_writes_is_named_by_the_file() {
    let Some(mut php) = Php::start(
        "<?php $f = fopen(__DIR__ . '/data', 'w'); echo \"ready\\n\";
while (true) { fwrite($f, str_repeat('x', 1 << 20)); fsync($f); ftruncate($f, 0); rewind($f); }",
    ) else {
        return;
    };
    let began = Instant::now();
    while began.elapsed() < PATIENCE / 4 {
        let Some(look) = php.look() else { continue };
        if look
            .wait
            .call
            .as_ref()
            .is_some_and(|call| call.name == Some("fsync"))
        {
            judge(&look, "fsync");
            assert_eq!(look.wait.class(), Class::File);
            let path = look.wait.call.as_ref().unwrap().descriptors[0].path().unwrap();
            assert!(path.ends_with("/data"), "{path}");
            return;
        }
    }
    skipped("fsync is never waited for in this machine's directory for temporary files");
}

#[test]
fn a_silent_name_server_is_named() {
    // The resolver reads its servers from one file only, and asks them at port 53 only.
    let unshare = Command::new("unshare").args(["-m", "true"]).output();
    let server = UdpSocket::bind("127.53.53.53:53");
    let (true, Ok(_server)) = (unshare.is_ok_and(|output| output.status.success()), server) else {
        skipped("a resolver of its own needs root (a mount namespace, and port 53 on loopback)");
        return;
    };
    let resolv = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolv.path(), "nameserver 127.53.53.53\noptions timeout:30\n").unwrap();
    let mut command = live::mortal("unshare");
    command.args([
        "-m",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/resolv.conf && exec php \"$@\"",
    ]);
    command.arg(resolv.path());
    let script = "<?php echo \"ready\\n\"; gethostbyname('slow.example');";
    let Some(mut php) = Php::start_in(command, script) else {
        return;
    };
    let look = php.look_in(&["poll"]);
    judge(&look, "gethostbyname");
    let expected = format!("poll on fd {} -> udp 127.53.53.53:53", fd(&look));
    assert_eq!(look.wait.to_string(), expected);
}

#[test]
fn queries_name_the_database_over_tcp_and_over_its_socket() {
    let database = match Database::start() {
        Ok(database) => database,
        Err(why) => return skipped(why),
    };
    let (port, socket) = (database.port, database.socket());
    let socket = socket.to_str().unwrap();
    let cases = [
        (
            format!(
                "$db = new mysqli('127.0.0.1', 'root', '', '', {port}); echo \"ready\\n\"; $db->query('SELECT SLEEP(60)');"
            ),
            "mysqli::query",
            format!("tcp 127.0.0.1:{port}"),
        ),
        (
            format!(
                "$db = new mysqli('localhost', 'root', '', '', 0, '{socket}'); echo \"ready\\n\"; mysqli_query($db, 'SELECT SLEEP(60)');"
            ),
            "mysqli_query",
            format!("unix {socket}"),
        ),
        (
            format!(
                "$db = new PDO('mysql:host=127.0.0.1;port={port}', 'root', ''); echo \"ready\\n\"; $db->query('SELECT SLEEP(60)');"
            ),
            "PDO::query",
            format!("tcp 127.0.0.1:{port}"),
        ),
        (
            format!(
                "$db = new PDO('mysql:unix_socket={socket}', 'root', ''); $q = $db->prepare('SELECT SLEEP(?)'); echo \"ready\\n\"; $q->execute([60]);"
            ),
            "PDOStatement::execute",
            format!("unix {socket}"),
        ),
    ];
    for (script, builtin, peer) in cases {
        let Some(mut php) = Php::start(&format!("<?php {script}")) else {
            return;
        };
        let look = php.look_in(&["poll", "recvfrom", "read"]);
        judge(&look, builtin);
        let call = look.wait.call.as_ref().unwrap().name.unwrap();
        assert_eq!(
            look.wait.to_string(),
            format!("{call} on fd {} -> {peer}", fd(&look))
        );
        assert_eq!(look.wait.class(), Class::Network);
    }
}

#[test]
fn a_connection_that_is_not_answered_is_named_by_where_it_should_go() {
    // A full backlog: further connections get no answer.
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let address = TcpListener::from(socket);
    let port = address.local_addr().unwrap().port();
    let script = format!(
        "<?php
$first = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
socket_connect($first, '127.0.0.1', {port});
$second = socket_create(AF_INET, SOCK_STREAM, SOL_TCP);
echo \"ready\\n\"; socket_connect($second, '127.0.0.1', {port});"
    );
    let Some(mut php) = Php::start(&script) else {
        return;
    };
    let look = php.look_in(&["connect"]);
    judge(&look, "socket_connect");
    assert_eq!(
        look.wait.to_string(),
        format!("connect on fd {} -> tcp 127.0.0.1:{port}", fd(&look))
    );
}
