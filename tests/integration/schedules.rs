//! The number of workers follows the load, within its limits; and requests that run too
//! long end with their workers.

use std::os::unix::net::UnixStream;

use crate::harness::{Supervised, start_program};

const SERVING: &str = "ready to handle connections";
const ENDED: &str = "has been killed by the process management";

fn start(config: &str) -> Supervised {
    start_program(|folder| {
        std::fs::write(folder.join("config"), config).expect("writes");
        vec!["reloads".to_owned(), folder.display().to_string()]
    })
}

/// So many clients, each of which keeps a worker busy until it is dropped.
fn connect(supervised: &Supervised, count: usize) -> Vec<UnixStream> {
    let connect = |_| UnixStream::connect(supervised.path("www.sock")).expect("connects");
    (0..count).map(connect).collect()
}

fn workers(supervised: &Supervised) -> usize {
    supervised.children(Some("worker")).len()
}

/// Lines with that text, in what was read so far.
fn count(supervised: &Supervised, text: &str) -> usize {
    supervised.log.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_dynamic_pool_grows_with_its_load_and_shrinks_after_it() {
    let mut supervised = start("pool www 4 worker=report pm=dynamic:1:1:1:8");
    supervised.wait_for(SERVING);
    let mut clients = connect(&supervised, 1);
    for wanted in 2..=4 {
        supervised.wait_for("1 child(ren) have been created dynamically");
        supervised.started(1);
        assert_eq!(workers(&supervised), wanted);
        clients.extend(connect(&supervised, 1));
    }
    clients.extend(connect(&supervised, 2));
    let line = supervised.wait_for("server reached pm.max_children setting (4), consider raising it");
    assert!(line.contains("WARNING"), "{line}");
    assert_eq!(workers(&supervised), 4);
    supervised.wait_for_all(&["pool 0 is saturated"]);
    drop(clients);
    (0..3).for_each(|_| drop(supervised.wait_for(ENDED)));
    supervised.wait_for("currently 0 active children, 1 spare children, 1 running children");
    assert_eq!(count(&supervised, "pm.max_children setting"), 1, "told once");
}

#[test]
fn a_static_pool_that_is_full_tells_so_while_connections_wait() {
    let mut supervised = start("pool www 2 worker=report");
    supervised.wait_for(SERVING);
    let mut clients = connect(&supervised, 2);
    supervised.signal(rustix::process::Signal::USR1);
    supervised.wait_for("error log file re-opened");
    assert_eq!(count(&supervised, "is saturated"), 0, "nobody waits");
    clients.extend(connect(&supervised, 1));
    supervised.wait_for("pool 0 is saturated");
    // And each second that it lasts.
    supervised.wait_for("pool 0 is saturated");
}

#[test]
fn an_ondemand_pool_meets_a_burst_at_once_and_rests_after_it() {
    let mut supervised = start("pool www 3 worker=report pm=ondemand:1");
    supervised.wait_for(SERVING);
    assert_eq!(workers(&supervised), 0);
    let clients = connect(&supervised, 5);
    supervised.started(3);
    assert_eq!(count(&supervised, "I forked"), 1);
    supervised.wait_for_all(&["server reached max_children setting (3), consider raising it"]);
    drop(clients);
    (0..3).for_each(|_| drop(supervised.wait_for(ENDED)));
    assert_eq!(workers(&supervised), 0);
    // It is ready for the next one.
    let _client = connect(&supervised, 1);
    supervised.started(1);
}

#[test]
fn an_idle_worker_that_does_not_listen_is_killed_and_replaced() {
    let mut supervised = start("pool www 2 worker=deaf pm=dynamic:2:1:1:8");
    supervised.wait_for(SERVING);
    supervised.wait_for("exited on signal 9 (SIGKILL)");
    let line = supervised.wait_for(" started");
    assert!(line.contains("NOTICE"), "{line}");
}

#[test]
fn a_request_that_runs_too_long_ends_with_its_worker() {
    let mut supervised = start("pool www 1 worker=report terminate=1");
    supervised.wait_for(SERVING);
    let _client = connect(&supervised, 1);
    let line = supervised.wait_for("execution timed out (1.");
    let expected = "script '/srv/in.dex.php' (request: \"GET /index.php?a=1\") execution timed out";
    assert!(
        line.contains(expected) && line.ends_with("sec), terminating"),
        "{line}"
    );
    supervised.wait_for("exited on signal 15 (SIGTERM)");
    supervised.started(1);
}

#[test]
fn the_workers_that_are_allowed_in_all_are_shared_by_the_pools() {
    let mut supervised = start("most 5\npool www 9 worker=report\npool other 9 worker=report");
    supervised.wait_for(SERVING);
    assert_eq!(workers(&supervised), 5);
    let told = "The maximum number of processes has been reached.";
    assert_eq!(count(&supervised, told), 1);
    let started = |pool| {
        let name = format!("[pool {pool}] child ");
        let lines = supervised
            .log
            .iter()
            .filter(|line| line.contains(&name) && line.ends_with(" started"));
        lines.count()
    };
    assert_eq!((started("www"), started("other")), (3, 2));
}
