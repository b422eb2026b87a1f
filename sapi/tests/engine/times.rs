//! Where a worker says that its requests' time went. Memory stands in for the map that the
//! kernel programs write.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use glasspool_abi::control::PoolSpec;
use glasspool_abi::create_slot_memory;
use glasspool_abi::record::End;
use glasspool_abi::slot::Stage;
use glasspool_abi::times::{self, Known, PAGE_BYTES, REQUEST, TIMES};

use crate::harness::{Engine, Setup, Worker, params, pool, read_response, send};

/// The page that the worker has; those beside it are others'.
const PAGE: u32 = 1;
const PAGES: usize = 3;

struct Map(OwnedFd);

impl Map {
    /// The worker has run since the clock began.
    fn new() -> Map {
        let map = Map(create_slot_memory(PAGES * PAGE_BYTES).expect("a memory file"));
        map.write(TIMES + times::BEGAN, 1);
        map.write(TIMES + times::SINCE, 1);
        map.write(TIMES + times::STATE, u64::from(times::STATE_ON_CPU));
        map
    }

    fn write(&self, word: usize, value: u64) {
        let at = (PAGE_BYTES + word * 8) as u64;
        rustix::io::pwrite(&self.0, &value.to_ne_bytes(), at).expect("writes");
    }

    fn page(&self, number: usize) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        rustix::io::pread(&self.0, &mut bytes, (number * PAGE_BYTES) as u64).expect("reads");
        bytes
    }

    fn request(&self) -> u64 {
        let page = self.page(1);
        u64::from_ne_bytes(page[REQUEST * 8..][..8].try_into().expect("a word"))
    }
}

fn took(end: &End) -> u64 {
    end.end_mono_ns - end.begin.start_mono_ns
}

#[test]
fn a_requests_number_is_on_the_workers_page_and_its_time_adds_up() {
    let map = Map::new();
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn_at(map.0.as_fd(), PAGE);
    let script = engine.script("waits.php", "<?php readfile($_SERVER['QUERY_STRING']);");
    let fifo = engine.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("makes");
    for number in 1..=2 {
        let asked = crate::harness::with(params(&script), "QUERY_STRING", fifo.to_str().expect("text"));
        let mut stream = engine.connect();
        send(&mut stream, &asked, b"", false);
        // Returns when the script has opened it for reading.
        let writer = fs::OpenOptions::new().write(true).open(&fifo).expect("opens");
        assert_eq!(map.request(), number);
        assert!(worker.slot.read_begin_times().is_some());
        drop(writer);
        assert!(read_response(&mut stream).ended);
        let end = worker.records(1).remove(0);
        let Known::All(times) = end.times else {
            panic!("{:?}", end.times)
        };
        assert_eq!((times.total_ns(), times.on_cpu_ns), (took(&end), took(&end)));
        assert_eq!(map.request(), 0);
    }
    for other in [0, 2] {
        assert!(
            map.page(other).iter().all(|byte| *byte == 0),
            "page {other} is another's"
        );
    }
}

#[test]
fn the_application_can_reach_no_page_but_its_workers_own() {
    let map = Map::new();
    let mut engine = Engine::start(pool());
    let worker = engine.spawn_at(map.0.as_fd(), PAGE);
    let inode = rustix::fs::fstat(&map.0).expect("stats").st_ino;
    let maps = fs::read_to_string(format!("/proc/{}/maps", worker.pid)).expect("reads");
    // Address, permissions, offset, device, inode (proc_pid_maps(5)).
    let mapped: Vec<Vec<&str>> = maps
        .lines()
        .map(|line| line.split_ascii_whitespace().collect())
        .filter(|fields: &Vec<&str>| fields[4] == inode.to_string())
        .collect();
    assert_eq!(mapped.len(), 1, "{mapped:?}");
    let ends = mapped[0][0].split_once('-').expect("a range");
    let [start, end] = [ends.0, ends.1].map(|end| usize::from_str_radix(end, 16).expect("hex"));
    assert_eq!((end - start, mapped[0][2]), (PAGE_BYTES, "00001000"));
    assert!(!holds(&worker, inode), "it still has the descriptor");
}

/// Whether the worker has a descriptor of that file.
fn holds(worker: &Worker, inode: u64) -> bool {
    let folder = fs::read_dir(format!("/proc/{}/fd", worker.pid)).expect("lists");
    folder
        .filter_map(|entry| rustix::fs::stat(entry.ok()?.path()).ok())
        .any(|stat| stat.st_ino == inode && stat.st_nlink == 0)
}

#[test]
fn a_process_that_the_application_forks_leaves_page_and_slot_alone() {
    let map = Map::new();
    let mut setup = Setup::of(pool());
    setup.start.define.push(("ffi.enable".to_owned(), "1".to_owned()));
    let mut engine = Engine::set_up(setup);
    let mut worker = engine.spawn_at(map.0.as_fd(), PAGE);
    let script = engine.script(
        "forks.php",
        "<?php $c = FFI::cdef('int fork(void); int kill(int, int); int waitpid(int, void *, int);');\n\
         $child = $c->fork();\n\
         if ($child === 0) { return; }\n\
         readfile(__DIR__ . '/fifo');\n\
         $c->kill($child, 9);\n\
         $c->waitpid($child, null, 0);",
    );
    let fifo = engine.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("makes");
    let mut stream = engine.connect();
    send(&mut stream, &params(&script), b"", false);
    let writer = fs::OpenOptions::new().write(true).open(&fifo).expect("opens");
    // The child's, which goes on as if it were the worker.
    assert_eq!(read_response(&mut stream).body(), "");
    assert_eq!(map.request(), 1, "the worker's request is under way");
    assert_eq!(worker.slot.ended(), 0, "and has not ended");
    assert_eq!(worker.slot.stage(), Some(Stage::Executing));
    drop(writer);
    let end = worker.records(1).remove(0);
    assert!(matches!(end.times, Known::All(_)), "{:?}", end.times);
    assert_eq!(map.request(), 0);
    worker.until(|slot| slot.ended() == 1 && slot.stage() == Some(Stage::Accepting));
}

#[test]
fn without_a_page_only_the_wait_for_a_cpu_is_known_and_only_of_requests_that_waited() {
    let known = |spec: PoolSpec, php: &str| {
        let mut engine = Engine::start(spec);
        let mut worker = engine.spawn();
        let script = engine.script("test.php", php);
        engine.get(&script);
        let end = worker.records(1).remove(0);
        if let Known::RunQueue(waited) = end.times {
            assert!(waited < took(&end), "{end:?}");
        }
        end.times
    };
    let sleeps = "<?php usleep(20000);";
    assert!(matches!(known(pool(), sleeps), Known::RunQueue(_)));
    let untraced = PoolSpec {
        tracing: false,
        ..pool()
    };
    assert_eq!(known(untraced, sleeps), Known::Nothing);
}
