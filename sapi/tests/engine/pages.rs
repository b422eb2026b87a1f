//! Pages that the pool answers itself, `fpm_get_status()`, and what `-v`, `-m` and `-i`
//! print: against stock php-fpm, with a thread that answers for the supervisor.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use glasspool_abi::control::{
    About, Channel, FromWorker, Pages, PoolSpec, PoolStatus, ProcessStatus, StatusPart, ToEngine,
};
use glasspool_abi::slot::Stage;

use crate::harness::{Engine, Response, engine_start, host, params, php, pool, with};
use crate::stock::Stock;

fn with_pages() -> PoolSpec {
    PoolSpec {
        pages: Pages {
            status_path: Some("/status".to_owned()),
            ping_path: Some("/ping".to_owned()),
            ping_response: "pong".to_owned(),
        },
        ..pool()
    }
}

/// Answers every question with what is in there at the time.
fn supervise(engine: &Engine, processes: Arc<Mutex<Vec<ProcessStatus>>>) {
    let ask = Channel::from(engine.ask.as_fd().try_clone_to_owned().expect("dup"));
    // Ends when the engine and its workers have closed their end.
    std::thread::spawn(move || {
        while let Ok((FromWorker::Status, mut fds)) = ask.receive() {
            let answer = Channel::from(fds.pop().expect("a descriptor"));
            let pool = PoolStatus {
                pool: "www".to_owned(),
                process_manager: "static".to_owned(),
                start_unix_s: 1_795_353_675,
                active: 1,
                ..PoolStatus::default()
            };
            answer.send(&StatusPart::Pool(pool), &[]).expect("sends");
            for some in processes.lock().expect("not poisoned").chunks(500) {
                answer
                    .send(&StatusPart::Processes(some.to_vec()), &[])
                    .expect("sends");
            }
        }
    });
}

/// What the supervisor would see of the one worker when it serves this.
fn serving(uri: &str, query: &str, script: &str) -> ProcessStatus {
    ProcessStatus {
        pid: 1,
        stage: Stage::Executing as u64,
        method: b"GET".to_vec(),
        uri: uri.into(),
        query: query.into(),
        script: script.into(),
        ..ProcessStatus::default()
    }
}

/// Without its figures: each run of digits becomes one `#`; what names a time becomes
/// the same for all times.
fn layout(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    for month in "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(' ') {
        out = out.replace(&format!("#/{month}/#"), "#/Mon/#");
    }
    out
}

fn whole(response: &Response) -> String {
    assert!(response.ended);
    layout(&String::from_utf8_lossy(&response.stdout))
}

#[test]
fn pages_are_those_of_php_fpm_but_for_their_figures() {
    let mut engine = Engine::start(with_pages());
    let _worker = engine.spawn();
    let stock = Stock::start(&engine);
    let seen = Arc::new(Mutex::new(Vec::new()));
    supervise(&engine, Arc::clone(&seen));
    let page = |uri: &str, query: &str, method: &str| {
        let request = params(&engine.folder.path().join("none.php"));
        let request = with(with(request, "SCRIPT_NAME", uri), "QUERY_STRING", query);
        with(request, "REQUEST_METHOD", method)
    };
    let keywords = ["", "html", "xml", "json", "openmetrics"];
    let queries = keywords
        .iter()
        .flat_map(|format| [(*format).to_owned(), format!("{format}&full=1")])
        .chain(["%68tml&json", "JSON", "+xml"].map(str::to_owned));
    for query in queries {
        *seen.lock().expect("not poisoned") = vec![serving("/status", &query, "")];
        for method in ["GET", "POST"] {
            seen.lock().expect("not poisoned")[0].method = method.into();
            let request = page("/status", &query, method);
            let (ours, theirs) = (engine.request(&request, b""), stock.request(&request, b""));
            assert_eq!(whole(&ours), whole(&theirs), "{method} ?{query}");
            assert_eq!((ours.stderr, theirs.stderr), (vec![], vec![]));
        }
    }
    for method in ["GET", "HEAD", "POST"] {
        let request = page("/ping", "", method);
        let (ours, theirs) = (engine.request(&request, b""), stock.request(&request, b""));
        assert_eq!(whole(&ours), whole(&theirs), "{method} /ping");
        assert_eq!(ours.body(), if method == "HEAD" { "" } else { "pong" });
    }
    for uri in ["/status/", "/Status", "/pingx", ""] {
        let request = page(uri, "", "GET");
        let (ours, theirs) = (engine.request(&request, b""), stock.request(&request, b""));
        assert_eq!(whole(&ours), whole(&theirs), "{uri}");
        assert!(ours.body().starts_with("File not found."));
    }
}

#[test]
fn head_has_the_headers_of_get() {
    let mut engine = Engine::start(with_pages());
    let _worker = engine.spawn();
    supervise(&engine, Arc::default());
    let request = with(
        params(&engine.folder.path().join("none.php")),
        "SCRIPT_NAME",
        "/status",
    );
    let request = with(request, "QUERY_STRING", "json");
    let get = engine.request(&request, b"");
    let head = engine.request(&with(request, "REQUEST_METHOD", "HEAD"), b"");
    assert_eq!(head.body(), "");
    let head = String::from_utf8_lossy(&head.stdout).into_owned();
    assert!(head.contains("Content-Type: application/json\r\n"), "{head}");
    assert!(get.stdout.starts_with(head.as_bytes()), "{head}");
}

#[test]
fn a_script_gets_the_figures() {
    let mut engine = Engine::start(with_pages());
    let _worker = engine.spawn();
    let stock = Stock::start(&engine);
    let seen = Arc::new(Mutex::new(Vec::new()));
    supervise(&engine, Arc::clone(&seen));
    let script = engine.script(
        "status.php",
        "<?php echo new ReflectionFunction('fpm_get_status'); var_dump(fpm_get_status());
         try { fpm_get_status(1); } catch (ArgumentCountError $e) { echo $e->getMessage(); }",
    );
    *seen.lock().expect("not poisoned") = vec![serving("/status.php", "a=1", &script.display().to_string())];
    let request = with(params(&script), "QUERY_STRING", "a=1");
    let (ours, theirs) = (engine.request(&request, b""), stock.request(&request, b""));
    assert_eq!(whole(&ours), whole(&theirs));
}

#[test]
fn a_pool_of_many_workers() {
    let mut engine = Engine::start(with_pages());
    let mut worker = engine.spawn();
    let idle = ProcessStatus {
        stage: Stage::Accepting as u64,
        ..serving("/a", "b", "/c")
    };
    supervise(&engine, Arc::new(Mutex::new(vec![idle; 12_800])));
    let many = engine.script("many.php", "<?php echo count(fpm_get_status()['procs']);");
    assert_eq!(engine.get(&many).body(), "12800", "{}", engine.log());
    let request = with(params(&many), "SCRIPT_NAME", "/status");
    let text = engine.request(&with(request, "QUERY_STRING", "full"), b"").body();
    assert_eq!(text.matches("\npid: ").count(), 12_800);
    // No room for them ends the script only.
    let poor = engine.script(
        "poor.php",
        "<?php ini_set('memory_limit', '4M'); echo count(fpm_get_status()['procs']);",
    );
    assert_eq!(engine.get(&poor).body(), "");
    assert_eq!(engine.get(&many).body(), "12800", "{}", engine.log());
    let statuses: Vec<u32> = worker.records(4).iter().map(|r| r.status).collect();
    assert_eq!(statuses, [200, 200, 500, 200]);
}

#[test]
fn no_figures_without_a_supervisor() {
    let mut engine = Engine::start(with_pages());
    let _worker = engine.spawn();
    let request = with(
        params(&engine.folder.path().join("none.php")),
        "SCRIPT_NAME",
        "/status",
    );
    // It is there, but says nothing.
    let before = Instant::now();
    let response = engine.request(&request, b"");
    let waited = before.elapsed();
    let limits = Duration::from_secs(2)..Duration::from_secs(10);
    assert!(limits.contains(&waited), "{waited:?}");
    let text = String::from_utf8_lossy(&response.stdout).into_owned();
    assert!(
        text.starts_with("Status: 500 Internal Server Error\r\n") && text.contains("text/plain"),
        "{text}"
    );
    assert_eq!(
        response.body(),
        "Internal error. Please review log file for errors."
    );
    // It is gone.
    engine.ask = Channel::pair().expect("a socket pair").0;
    let response = engine.request(&request, b"");
    let line = "status: unable to find or access status shared memory";
    assert!(String::from_utf8_lossy(&response.stderr).contains(line));
    let script = engine.script("none.php", "<?php var_dump(fpm_get_status());");
    let response = engine.get(&script);
    assert_eq!(response.body(), "bool(false)\n");
    let log = engine.log();
    for line in [
        "ERROR: scoreboard: the supervisor did not answer within 2000 ms\n",
        "ERROR: scoreboard: cannot ask the supervisor: ",
        "ERROR: status: unable to find or access status shared memory\n",
        "NOTICE: [pool www] status: cannot ask the supervisor: ",
    ] {
        assert!(log.contains(line), "{log}");
    }
}

/// What an engine prints when asked for this, and php-fpm with this flag.
fn described(about: About, flag: &str) -> (String, String) {
    let (mut child, control, _) = host(engine_start());
    let mut file = tempfile::tempfile().expect("a file");
    control
        .send(&ToEngine::Describe(about), &[file.as_fd()])
        .expect("sends");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    let mut ours = String::new();
    std::io::Seek::rewind(&mut file).expect("rewinds");
    file.read_to_string(&mut ours).expect("UTF-8");
    let mut stock = Command::new(php());
    for (name, value) in engine_start().define {
        stock.arg("-d").arg(format!("{name}={value}"));
    }
    let theirs = stock.arg(flag).output().expect("runs");
    (ours, String::from_utf8(theirs.stdout).expect("UTF-8"))
}

#[test]
fn version_and_modules_are_those_of_php_fpm() {
    let (ours, theirs) = described(About::Version, "-v");
    assert_eq!(ours, theirs);
    let (ours, theirs) = described(About::Modules, "-m");
    assert_eq!(ours, theirs);
}

#[test]
fn information_is_that_of_php_fpm() {
    let (ours, theirs) = described(About::Info, "-i");
    let lines = |text: &str| {
        let never_twice_the_same = ["Interned Strings ", "$_SERVER['REQUEST_TIME"];
        let lines = text.lines().map(|line| {
            let start = never_twice_the_same
                .iter()
                .find(|start| line.starts_with(**start));
            start.map_or(line, |start| *start).to_owned()
        });
        lines.collect::<Vec<_>>()
    };
    let (mut ours, theirs) = (lines(&ours), lines(&theirs));
    ours.retain(|line| line != "Process manager => Glasspool");
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "line {}", number + 1);
    }
    assert_eq!(ours.len(), theirs.len());
}
