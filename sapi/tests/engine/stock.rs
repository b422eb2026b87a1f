//! Stock php-fpm beside our engine: the same scripts and the same parameters must give
//! the same bytes.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Engine, Response, params, php, pool, read_response, send, with};

/// A php-fpm with one worker.
pub(crate) struct Stock {
    child: Child,
    socket: PathBuf,
}

impl Stock {
    pub(crate) fn start(engine: &Engine) -> Stock {
        Stock::with(engine, "")
    }

    /// Starts one with these lines added to its pool.
    pub(crate) fn with(engine: &Engine, more: &str) -> Stock {
        let folder = engine.folder.path();
        let socket = folder.join("stock");
        let config = folder.join("stock.conf");
        let text = format!(
            "[global]\nerror_log={0}/stock.log\ndaemonize=no\n[www]\nuser=root\ngroup=root\nlisten={0}/stock\n\
             pm=static\npm.max_children=1\npm.status_path=/status\nping.path=/ping\nphp_value[opcache.enable]=1\nphp_value[log_errors]=1\nphp_value[display_errors]=0\n{more}\n",
            folder.display()
        );
        std::fs::write(&config, text).expect("writes");
        let child = Command::new(php())
            .arg("-FR")
            .arg("-y")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "php-fpm does not listen");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Stock { child, socket }
    }

    pub(crate) fn request(&self, params: &[(String, String)], body: &[u8]) -> Response {
        let mut stream = UnixStream::connect(&self.socket).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("sets");
        send(&mut stream, params, body, false);
        let response = read_response(&mut stream);
        drop(stream);
        response
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _gone = self.child.wait();
    }
}

struct Case {
    name: &'static str,
    php: &'static str,
    change: &'static [(&'static str, &'static str)],
    body: &'static [u8],
}

const fn case(name: &'static str, php: &'static str) -> Case {
    Case {
        name,
        php,
        change: &[],
        body: b"",
    }
}

const FORM: &[(&str, &str)] = &[
    ("REQUEST_METHOD", "POST"),
    ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
    ("CONTENT_LENGTH", "11"),
];

const CASES: &[Case] = &[
    case(
        "working_directory",
        "<?php echo getcwd(); chdir('/'); register_shutdown_function(function () { echo ' ', getcwd(); });",
    ),
    case(
        "working_directory_after_a_fatal_error",
        "<?php chdir('/usr'); register_shutdown_function(function () { echo getcwd(); }); nothing();",
    ),
    case("exit_with_status", "<?php echo 'a'; exit(3);"),
    case("status_line", "<?php header('HTTP/1.1 418 I am a teapot'); echo 'short';"),
    case("response_code", "<?php http_response_code(201); header('X-A: b', false); header('X-A: c', false);"),
    case("status_header", "<?php header('X-First: 1'); header('Status: 404 Gone fishing'); echo 1;"),
    case("not_found_code", "<?php http_response_code(404); echo 'gone';"),
    case("redirect", "<?php header('Location: /there');"),
    case("not_modified", "<?php http_response_code(304); header('Content-Type: text/plain');"),
    case("unknown_code", "<?php http_response_code(299);"),
    case("text_type", "<?php header('Content-Type: text/plain'); echo 'x';"),
    case("cookies", "<?php setcookie('a', 'b'); setcookie('c', 'd'); var_dump($_COOKIE);"),
    case("fatal", "<?php echo 'before'; nothing();"),
    case("exception", "<?php throw new DomainException('no');"),
    case("memory_limit", "<?php ini_set('memory_limit', '8M'); $a = str_repeat('x', 100 << 20);"),
    case("time_limit", "<?php set_time_limit(1); while (true) { }"),
    case("parse_error", "<?php this is not PHP"),
    case("warning", "<?php echo $undefined; echo [] . ''; error_log('logged'); echo 'on';"),
    case("endless_recursion", "<?php ini_set('memory_limit', '32M'); function f($a) { return f($a . 'x'); } f('');"),
    case(
        "order_of_the_end",
        "<?php class D { function __destruct() { echo 'destructor '; } } $d = new D;
         register_shutdown_function(function () { echo 'shutdown '; });
         ob_start(function ($b) { return \"[$b]\"; }); echo 'body ';",
    ),
    case(
        "finish_request",
        "<?php echo 'sent'; register_shutdown_function(function () { echo 'never seen'; });
         var_dump(fastcgi_finish_request()); echo 'nor this';",
    ),
    case("finish_twice", "<?php fastcgi_finish_request(); file_put_contents('php://stderr', var_export(fastcgi_finish_request(), true));"),
    case("big_output", "<?php for ($i = 0; $i < 4000; $i++) { echo str_repeat(chr(65 + $i % 26), 257); }"),
    case("flushed_output", "<?php echo 'a'; flush(); echo 'b'; ob_flush(); flush(); echo 'c';"),
    case(
        "server_variables",
        "<?php unset($_SERVER['REQUEST_TIME'], $_SERVER['REQUEST_TIME_FLOAT'], $_SERVER['HTTP_TRACEPARENT']);
         foreach (['USER', 'HOME', 'ORIG_SCRIPT_FILENAME'] as $n) unset($_SERVER[$n]); ksort($_SERVER); print_r($_SERVER);",
    ),
    Case {
        name: "headers_functions",
        php: "<?php $h = getallheaders(); unset($h['Traceparent']); print_r($h); var_dump(getenv('HTTP_X_ONE'), getenv('NOPE'), getenv('HTTP_PROXY'), $_SERVER['HTTP_PROXY'] ?? null);",
        change: &[("HTTP_X_ONE", "1"), ("HTTP_ACCEPT_LANGUAGE", "de"), ("HTTP_PROXY", "evil"), ("CONTENT_TYPE", "a/b")],
        body: b"",
    },
    Case {
        name: "getenv_of_everything",
        php: "<?php $all = getenv(); var_dump($all['SERVER_NAME'] ?? null, isset($all['PHP_SELF']), isset($all['argv']));
              putenv('SERVER_NAME=put'); var_dump(getenv('SERVER_NAME'), getenv()['SERVER_NAME'], getenv('SERVER_NAME', true));",
        change: &[],
        body: b"",
    },
    Case {
        name: "env_superglobal",
        php: "<?php var_dump($_ENV['SERVER_NAME'] ?? null, $_ENV['HTTP_X'] ?? null, isset($_ENV['PHP_SELF']), $_SERVER['HTTP_X'] ?? null);",
        change: &[("HTTP_X", "x"), ("PHP_VALUE", "variables_order=EGPCS")],
        body: b"",
    },
    Case { name: "form_post", php: "<?php print_r($_POST);", change: FORM, body: b"a=1&b[]=2xx" },
    Case {
        name: "raw_body",
        php: "<?php echo strrev(file_get_contents('php://input'));",
        change: &[("REQUEST_METHOD", "PUT"), ("CONTENT_LENGTH", "5"), ("CONTENT_TYPE", "x/y")],
        body: b"12345",
    },
    Case {
        name: "body_cut_at_its_length",
        php: "<?php echo file_get_contents('php://input');",
        change: &[("REQUEST_METHOD", "PUT"), ("CONTENT_LENGTH", "3"), ("CONTENT_TYPE", "x/y")],
        body: b"12345",
    },
    Case {
        name: "upload",
        php: "<?php print_r($_POST); $f = $_FILES['f']; echo $f['name'], ' ', $f['size'], ' ', file_get_contents($f['tmp_name']);",
        change: &[
            ("REQUEST_METHOD", "POST"),
            ("CONTENT_TYPE", "multipart/form-data; boundary=x"),
            ("CONTENT_LENGTH", "135"),
        ],
        body: b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.txt\"\r\n\r\ncontent\r\n--x--\r\n",
    },
    Case { name: "head", php: "<?php header('X-A: 1'); echo 'no body';", change: &[("REQUEST_METHOD", "HEAD")], body: b"" },
    Case { name: "no_method", php: "<?php echo 'not run';", change: &[("REQUEST_METHOD", "\0")], body: b"" },
    Case {
        name: "basic_auth",
        php: "<?php echo $_SERVER['PHP_AUTH_USER'], ' ', $_SERVER['PHP_AUTH_PW'];",
        change: &[("HTTP_AUTHORIZATION", "Basic dXNlcjpwYXNz")],
        body: b"",
    },
    Case {
        name: "php_value",
        php: "<?php echo ini_get('precision'), ' ', ini_get('memory_limit'), ' ', var_export(ini_set('memory_limit', '1G'), true);",
        change: &[("PHP_VALUE", "precision=7"), ("PHP_ADMIN_VALUE", "memory_limit=99M")],
        body: b"",
    },
    Case {
        name: "body_file_missing",
        php: "<?php echo file_get_contents('php://input'), '.';",
        change: &[
            ("REQUEST_METHOD", "PUT"), ("CONTENT_LENGTH", "5"), ("CONTENT_TYPE", "x/y"), ("REQUEST_BODY_FILE", "/nowhere"),
        ],
        body: b"",
    },
    Case {
        name: "redirect_of_a_post",
        php: "<?php header('Location: /there');",
        change: FORM,
        body: b"a=1&b[]=2xx",
    },
    Case {
        name: "long_message",
        php: "<?php error_log(str_repeat('m', 3000)); error_log(\"two\\nlines\");",
        change: &[],
        body: b"",
    },
    Case {
        name: "refused_value_of_a_request",
        php: "<?php echo 1;",
        change: &[("PHP_VALUE", "no.such.entry=1\nprecision[]=2\n[section]\nprecision=3")],
        body: b"",
    },
    Case { name: "missing_script", php: "", change: &[("SCRIPT_FILENAME", "/nowhere/x.php")], body: b"" },
    Case { name: "denied_extension", php: "", change: &[("SCRIPT_FILENAME", "/etc/passwd")], body: b"" },
    Case { name: "unreadable", php: "", change: &[("SCRIPT_FILENAME", "/proc/1/mem.php")], body: b"" },
    Case { name: "parent_component", php: "", change: &[("SCRIPT_FILENAME", "/tmp/../etc/x.php")], body: b"" },
];

#[test]
fn responses_are_those_of_php_fpm() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let stock = Stock::start(&engine);
    let mut differences = String::new();
    for case in CASES {
        let script = engine.script(&format!("{}.php", case.name), case.php);
        let mut request = params(&script);
        for (name, value) in case.change {
            request = with(request, name, value);
            request.retain(|(_, v)| v != "\0");
        }
        let (ours, theirs) = (
            engine.request(&request, case.body),
            stock.request(&request, case.body),
        );
        for (what, ours, theirs) in [
            ("stdout", &ours.stdout, &theirs.stdout),
            ("stderr", &ours.stderr, &theirs.stderr),
        ] {
            if ours != theirs {
                differences += &format!(
                    "=== {} {what}\n--- ours\n{}\n--- php-fpm\n{}\n",
                    case.name,
                    String::from_utf8_lossy(ours),
                    String::from_utf8_lossy(theirs)
                );
            }
        }
        if ours.ended != theirs.ended {
            differences += &format!(
                "=== {}: END_REQUEST {} / {}\n",
                case.name, ours.ended, theirs.ended
            );
        }
    }
    let mut log = String::new();
    if !differences.is_empty() {
        std::fs::File::open(engine.folder.path().join("worker.log"))
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
    }
    assert!(differences.is_empty(), "{differences}\n{log}");
}

/// What a script sees of the variables that the path fix-ups touch.
const SHOWN: &str = "<?php foreach (['SCRIPT_FILENAME', 'SCRIPT_NAME', 'PATH_INFO', 'PATH_TRANSLATED', 'REDIRECT_URL'] as $name)
     foreach (['', 'ORIG_'] as $former) echo $former, $name, '=', $_SERVER[$former . $name] ?? '-', ' ';
     echo 'PHP_SELF=', $_SERVER['PHP_SELF'], ' ', __FILE__;";

/// Parameters of a request for a script; `@` is the script's path.
const PATHS: &[&[(&str, &str)]] = &[
    &[("SCRIPT_FILENAME", "proxy:fcgi://h:9@")],
    &[("SCRIPT_FILENAME", "proxy:fcgi://h:9@?q=1")],
    &[("SCRIPT_FILENAME", "PROXY:balancer://h@")],
    &[
        ("SCRIPT_FILENAME", "proxy:fcgi://h:9@/x"),
        ("SCRIPT_NAME", "/p.php/x"),
    ],
    &[
        ("SCRIPT_FILENAME", "proxy:fcgi://h:9@/%20x"),
        ("SCRIPT_NAME", "/p.php/ x"),
    ],
    &[
        ("SCRIPT_FILENAME", "proxy:fcgi://h:9@"),
        ("PATH_INFO", "/pi"),
        ("PATH_TRANSLATED", "/t/pi"),
    ],
    &[
        ("SCRIPT_FILENAME", "proxy:fcgi://h:9@/pi"),
        ("PATH_INFO", "/pi"),
        ("PATH_TRANSLATED", "/t/pi"),
    ],
    &[("SCRIPT_FILENAME", "proxy:fcgi://h")],
    &[("SCRIPT_FILENAME", "@?q=1")],
    &[
        ("SCRIPT_FILENAME", "@/foo"),
        ("SCRIPT_NAME", "/p.php/foo"),
        ("PATH_INFO", "/foo"),
    ],
    &[
        ("SCRIPT_FILENAME", "@/foo/"),
        ("SCRIPT_NAME", "/p.php"),
        ("PATH_INFO", "/foo/"),
    ],
    &[
        ("SCRIPT_FILENAME", "@/foo"),
        ("PATH_INFO", "/p.php/foo"),
        ("PATH_TRANSLATED", "/t"),
    ],
    &[("SCRIPT_FILENAME", "@/foo"), ("PATH_INFO", "")],
    &[("SCRIPT_FILENAME", "@/"), ("SCRIPT_NAME", "/p.php/")],
    &[("PATH_TRANSLATED", "@"), ("REDIRECT_URL", "/r")],
    &[
        ("SCRIPT_FILENAME", "/usr/bin/php-cgi"),
        ("PATH_TRANSLATED", "@"),
        ("REDIRECT_URL", "/r"),
        ("PATH_INFO", "/r"),
    ],
    &[
        ("SCRIPT_FILENAME", "/usr/bin/php-cgi"),
        ("PATH_TRANSLATED", "@/y"),
        ("REDIRECT_URL", "/r"),
        ("PATH_INFO", "/r/y"),
    ],
    &[("SCRIPT_FILENAME", ""), ("PATH_TRANSLATED", "@")],
    &[
        ("SERVER_SOFTWARE", "Microsoft-IIS/10"),
        ("PATH_INFO", "/p.php/x"),
        ("SCRIPT_FILENAME", "@"),
    ],
    &[("SERVER_SOFTWARE", "Microsoft-IIS/10"), ("PATH_INFO", "/p.php")],
    &[
        ("SCRIPT_FILENAME", "/no/such/folder/x.php/y"),
        ("PATH_INFO", "/y"),
    ],
];

#[test]
fn paths_are_fixed_up_as_by_php_fpm() {
    for fix in ["1", "0"] {
        let mut spec = pool();
        spec.php_values = vec![glasspool_abi::control::PhpSetting {
            name: "cgi.fix_pathinfo".to_owned(),
            value: fix.to_owned(),
            admin: true,
        }];
        let mut engine = Engine::start(spec);
        let _worker = engine.spawn();
        let stock = Stock::with(&engine, &format!("php_admin_value[cgi.fix_pathinfo]={fix}"));
        let script = engine.script("p.php", SHOWN);
        let path = script.display().to_string();
        let mut differences = String::new();
        for change in PATHS {
            let mut request = params(&script);
            for (name, value) in *change {
                request = with(request, name, &value.replace('@', &path));
            }
            let [ours, theirs] = [engine.request(&request, b""), stock.request(&request, b"")]
                .map(|r| String::from_utf8_lossy(&r.stdout).into_owned());
            if ours != theirs {
                differences += &format!("=== {change:?}\n--- ours\n{ours}\n--- php-fpm\n{theirs}\n");
            }
        }
        assert!(differences.is_empty(), "cgi.fix_pathinfo={fix}\n{differences}");
    }
}
