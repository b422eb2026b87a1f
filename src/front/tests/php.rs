//! Stock PHP behind the front.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{Full, channel::Channel};
use hyper::Request;

use super::backend::Php;
use super::{Front, empty, text};

/// A front with PHP behind it.
struct Site {
    front: Front,
    directory: tempfile::TempDir,
    _php: Php,
}

impl Site {
    /// Serves `root`, or the site's own directory. `None`, and a line that says so, if there is no php-cgi.
    fn start(root: Option<&Path>) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join(".pool.sock");
        let php = Php::cgi(&socket)?;
        let front = Front::start(root.unwrap_or(directory.path()), socket);
        Some(Self {
            front,
            directory,
            _php: php,
        })
    }

    fn with(files: &[(&str, &str)]) -> Option<Self> {
        let site = Self::start(None)?;
        for (name, content) in files {
            let file = site.directory.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        Some(site)
    }

    fn demo() -> Option<Self> {
        Self::start(Some(&demo()))
    }
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo")
}

const ECHO: (&str, &str) = (
    "echo.php",
    "<?php header('X-Length: ' . $_SERVER['CONTENT_LENGTH']); \
     $in = fopen('php://input', 'r'); while (!feof($in)) { echo fread($in, 8192); }",
);

#[tokio::test]
async fn the_demo_home_page_lists_pages_that_all_answer() {
    let Some(site) = Site::demo() else { return };
    let home = site.front.get("/").await;
    assert_eq!(home.headers()["content-type"], "text/html; charset=utf-8");
    let links: Vec<_> = text(&home)
        .split("<a href=\"")
        .skip(1)
        .map(|rest| rest.split_once('"').expect("the attribute ends").0)
        .collect();
    let expected = [
        "/slow.php",
        "/socket.php",
        "/cpu.php",
        "/throw.php",
        "/later.php",
        "/report/42",
    ]
    .map(|page| (page, if page == "/throw.php" { 500 } else { 200 }));
    assert_eq!(links, expected.map(|(page, _)| page));
    for (page, status) in expected {
        assert_eq!(site.front.get(page).await.status(), status, "{page}");
    }
}

#[tokio::test]
async fn demo_pages_are_as_slow_as_they_say() {
    let Some(site) = Site::demo() else { return };
    for (page, least) in [("/slow.php", 1200), ("/socket.php", 800), ("/cpu.php", 800)] {
        let start = Instant::now();
        site.front.get(page).await;
        assert!(
            start.elapsed() >= Duration::from_millis(least),
            "{page} took {:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn later_work_does_not_keep_the_visitor() {
    let directory = tempfile::tempdir().unwrap();
    let Some((_php, socket)) = Php::fpm(directory.path()) else {
        return;
    };
    let front = Front::start(&demo(), socket);
    let start = Instant::now();
    let page = front.get("/later.php").await;
    let answered = start.elapsed();
    assert_eq!(page.status(), 200);
    // The only worker takes the next request when the work of the first is done.
    front.get("/").await;
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "the work was done after {:?}",
        start.elapsed()
    );
    assert!(
        answered < Duration::from_millis(400),
        "the answer took {answered:?}"
    );
}

#[tokio::test]
async fn the_front_controller_takes_what_is_no_file() {
    let Some(site) = Site::demo() else { return };
    let report = site.front.get("/report/42?from=here").await;
    assert!(
        text(&report).contains("<caption>Report 42</caption>"),
        "{}",
        text(&report)
    );
    let missing = site.front.get("/no/such/page").await;
    assert_eq!(missing.status(), 404);
    assert!(
        text(&missing).contains("<code>/no/such/page</code>"),
        "PHP has made this page"
    );
}

#[tokio::test]
async fn files_are_sent_with_type_range_and_validator() {
    let Some(site) = Site::demo() else { return };
    let css = site.front.get("/style.css").await;
    assert_eq!(css.headers()["content-type"], "text/css");
    let modified = css.headers()["last-modified"].clone();
    let again = Request::get("/style.css")
        .header("if-modified-since", modified)
        .body(empty())
        .unwrap();
    assert_eq!(site.front.send(again).await.status(), 304);
    let range = Request::get("/style.css")
        .header("range", "bytes=0-1")
        .body(empty())
        .unwrap();
    let range = site.front.send(range).await;
    assert_eq!((range.status().as_u16(), text(&range)), (206, "/*"));
    let post = site
        .front
        .send(Request::post("/style.css").body(empty()).unwrap())
        .await;
    assert_eq!(
        (post.status().as_u16(), &post.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
}

#[tokio::test]
async fn php_sees_the_request_as_behind_nginx() {
    let show = "<?php echo implode('|', array_map(fn ($name) => $_SERVER[$name] ?? '-', explode(',', $_GET['show'])));";
    let Some(site) = Site::with(&[("dir/show.php", show)]) else {
        return;
    };
    let path = "/dir/show.php/some/info?show=SCRIPT_NAME,PATH_INFO,REQUEST_URI,PHP_SELF,HTTP_HOST,HTTP_PROXY";
    let request = Request::get(path)
        .header("proxy", "http://evil.test")
        .body(empty())
        .unwrap();
    let response = site.front.send(request).await;
    let expected = format!("/dir/show.php|/some/info|{path}|/dir/show.php/some/info|site.test|-");
    assert_eq!(text(&response), expected);
}

#[tokio::test]
async fn a_form_is_posted() {
    let Some(site) = Site::with(&[("form.php", "<?php echo $_POST['a'] . $_POST['b'];")]) else {
        return;
    };
    let request = Request::post("/form.php")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from("a=1&b=%C3%A9"))
        .unwrap();
    assert_eq!(text(&site.front.send(request).await), "1é");
}

#[tokio::test]
async fn twenty_megabytes_go_in_and_out_at_the_same_time() {
    let Some(site) = Site::with(&[ECHO]) else { return };
    let body = noise(20 << 20);
    let request = Request::post("/echo.php")
        .header("content-type", "application/octet-stream")
        .body(Full::new(body.clone()))
        .unwrap();
    let response = site.front.send(request).await;
    assert_eq!(response.headers()["x-length"], (20 << 20).to_string());
    assert!(
        response.body() == &body,
        "{} bytes came back",
        response.body().len()
    );
}

#[tokio::test]
async fn a_chunked_body_gets_a_length() {
    let Some(site) = Site::with(&[ECHO]) else { return };
    let body = noise(300_000);
    // The client does not know the length of a channel, so it sends chunks.
    let (mut sender, channel) = Channel::<Bytes>::new(300);
    for part in body.chunks(1000) {
        sender.send_data(Bytes::copy_from_slice(part)).await.unwrap();
    }
    drop(sender);
    let request = Request::put("/echo.php")
        .header("content-type", "application/octet-stream")
        .body(channel)
        .unwrap();
    let response = site.front.send(request).await;
    assert_eq!(response.headers()["x-length"], "300000");
    assert!(
        response.body() == &body,
        "{} bytes came back",
        response.body().len()
    );
}

#[tokio::test]
async fn a_body_that_php_ignores_does_no_harm() {
    let Some(site) = Site::with(&[("deaf.php", "<?php echo 'enough';")]) else {
        return;
    };
    let request = Request::post("/deaf.php")
        .header("content-type", "application/octet-stream")
        .body(Full::new(noise(100_000)))
        .unwrap();
    assert_eq!(text(&site.front.send(request).await), "enough");
}

#[tokio::test]
async fn head_has_headers_only_and_the_script_runs_to_its_end() {
    let script = "<?php header('X-Method: ' . $_SERVER['REQUEST_METHOD']); echo 'body'; \
        file_put_contents(__DIR__ . '/done.txt', 'yes');";
    let Some(site) = Site::with(&[("head.php", script)]) else {
        return;
    };
    let response = site
        .front
        .send(Request::head("/head.php").body(empty()).unwrap())
        .await;
    assert_eq!(
        (response.headers()["x-method"].as_bytes(), text(&response)),
        (&b"HEAD"[..], "")
    );
    assert_eq!(text(&site.front.get("/done.txt").await), "yes");
}

#[tokio::test]
async fn status_redirect_and_cookies_are_php_s() {
    let files = [
        (
            "go.php",
            "<?php setcookie('a', '1'); setcookie('b', '2'); header('Location: /there');",
        ),
        ("none.php", "<?php http_response_code(204);"),
        ("teapot.php", "<?php http_response_code(418); echo 'short';"),
    ];
    let Some(site) = Site::with(&files) else { return };
    let go = site.front.get("/go.php").await;
    assert_eq!(
        (go.status().as_u16(), &go.headers()["location"]),
        (302, &"/there".parse().unwrap())
    );
    assert_eq!(
        go.headers().get_all("set-cookie").iter().collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert_eq!(site.front.get("/none.php").await.status(), 204);
    let teapot = site.front.get("/teapot.php").await;
    assert_eq!((teapot.status().as_u16(), text(&teapot)), (418, "short"));
}

#[tokio::test]
async fn what_must_not_be_seen_is_not_seen() {
    let files = [
        (
            "index.php",
            "<?php http_response_code(404); echo 'from index.php';",
        ),
        (".env", "SECRET"),
        (".git/config", "SECRET"),
        ("old.php.bak", "<?php 'SECRET';"),
        ("blog/index.php", "<?php echo 'blog';"),
    ];
    let Some(site) = Site::with(&files) else { return };
    std::fs::write(site.directory.path().join("outside.txt"), "linked").unwrap();
    std::os::unix::fs::symlink("../outside.txt", site.directory.path().join("blog/link.txt")).unwrap();
    let cases = [
        ("/.env", 404),
        ("/%2eenv", 404),
        ("/.git/config", 404),
        ("/.pool.sock", 404),
        ("/old.php.bak", 404),
        ("/missing.php", 404),
        ("/../../etc/passwd", 400),
        ("/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/..%2f..%2fetc/passwd", 400),
        ("/index.php%00.txt", 400),
        ("/blog?x=1", 301),
        ("/blog/", 200),
        ("/blog/link.txt", 200),
    ];
    for (path, status) in cases {
        let response = site.front.get(path).await;
        assert_eq!(response.status(), status, "{path}: {}", text(&response));
        assert!(
            !text(&response).contains("SECRET") && !text(&response).contains("index.php"),
            "{path}"
        );
        if status == 301 {
            assert_eq!(response.headers()["location"], "/blog/?x=1");
        }
    }
}

/// Bytes without a pattern (a linear congruential generator), so that lost or moved ones are noticed.
fn noise(length: usize) -> Bytes {
    let mut state = 1_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}
