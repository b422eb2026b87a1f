//! What a look does to a request: php-fpm's breaks one that waits for a socket with a
//! time limit (signal(7), calls that a stop interrupts), ours does not.

use std::net::UdpSocket;

use super::is_root;
use super::sink::Sink;
use super::stand::{Site, Stand};

/// php-fpm knows whole seconds only, and looks up to a third of them late.
const SLOWLOG: &str = "request_slowlog_timeout = 1s\nslowlog = ROOT/slow.log";

fn script(port: u16) -> String {
    format!(
        "<?php
$socket = socket_create(AF_INET, SOCK_DGRAM, SOL_UDP);
socket_connect($socket, '127.0.0.1', {port});
socket_set_option($socket, SOL_SOCKET, SO_RCVTIMEO, ['sec' => 3, 'usec' => 0]);
$began = microtime(true);
$got = @socket_recv($socket, $data, 100, 0);
printf('%s after %d s: %s', var_export($got, true), microtime(true) - $began,
    socket_strerror(socket_last_error($socket)));"
    )
}

#[test]
fn a_timed_receive_that_php_fpms_slowlog_breaks_ends_with_ours_as_without() {
    if !is_root("php-fpm's slowlog") {
        return;
    }
    // Nothing ever comes from here.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = silent.local_addr().expect("is bound").port();
    let site = |lines| {
        let site = Site::new("timed", 1, lines);
        site.write("receive.php", &script(port));
        site
    };
    let sink = Sink::start();
    let Some(ours) = site(SLOWLOG).ours(&[], &sink) else {
        return;
    };
    let (plain, stock) = (site("").stock(&[]), site(SLOWLOG).stock(&[]));
    let asked = [&plain, &stock, &ours].map(|stand| stand.ask("receive.php"));
    let [without, stock_said, ours_said] = asked.map(|answer| answer.join().expect("is answered"));
    assert_eq!(without, "false after 3 s: Resource temporarily unavailable");
    assert_eq!(ours_said, without);
    assert!(
        stock_said.ends_with(": Interrupted system call") && !stock_said.contains("after 3 s"),
        "{stock_said}"
    );
    // Both have looked.
    let entry = |stand: &Stand| stand.wait_for_text("slow.log", "socket_recv() ");
    let place = |stand: &Stand| format!("socket_recv() {}:6", stand.path("receive.php").display());
    for stand in [&stock, &ours] {
        let entry = entry(stand);
        assert!(entry.contains(&place(stand)), "{entry}");
    }
}
