//! FastCGI peers that misbehave, clients that leave, and shutdown.

use std::path::Path;

use bytes::Bytes;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use super::{Front, PATIENCE, empty, text};
use crate::front::{FrontError, FrontOptions, run};

const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const END: u8 = 3;

/// A site whose PHP is played by the test.
struct Stage {
    front: Front,
    pool: UnixListener,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.php"), "played by the test").unwrap();
        let socket = directory.path().join("pool.sock");
        let pool = UnixListener::bind(&socket).unwrap();
        Self {
            front: Front::start(directory.path(), socket),
            pool,
            _directory: directory,
        }
    }

    /// Accepts a connection of the front and reads the request to the end of its body.
    async fn accept(&self) -> UnixStream {
        let (mut peer, _) = timeout(PATIENCE, self.pool.accept())
            .await
            .expect("the front connects")
            .unwrap();
        while read_record(&mut peer).await.expect("the request has an end") != (STDIN, 0) {}
        peer
    }

    /// Answers one request with these bytes and closes; gives what the client got.
    async fn answer(&self, bytes: &[u8]) -> Result<hyper::Response<Bytes>, hyper::Error> {
        let peer = async {
            let mut peer = self.accept().await;
            // The front closes first if it does not like what it reads.
            peer.write_all(bytes).await.ok();
        };
        tokio::join!(
            self.front.try_send(Request::get("/").body(empty()).unwrap()),
            peer
        )
        .0
    }
}

/// Type and content length of the next record; `None` when the connection has ended.
async fn read_record(peer: &mut UnixStream) -> Option<(u8, u16)> {
    let mut header = [0; 8];
    peer.read_exact(&mut header).await.ok()?;
    let [_, record, _, _, length1, length0, padding, _] = header;
    let length = u16::from_be_bytes([length1, length0]);
    let mut content = vec![0; usize::from(length) + usize::from(padding)];
    peer.read_exact(&mut content).await.ok()?;
    Some((record, length))
}

fn record(record: u8, content: &[u8]) -> Vec<u8> {
    let [length1, length0] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, record, 0, 1, length1, length0, 0, 0], content].concat()
}

fn end(protocol_status: u8) -> Vec<u8> {
    record(END, &[0, 0, 0, 0, protocol_status, 0, 0, 0])
}

#[tokio::test]
async fn answers_that_are_none_become_502_or_503() {
    let stage = Stage::new();
    let head = record(STDOUT, b"Content-Type: text/plain\r\n");
    let long = [
        record(STDOUT, &[b'x'; 60_000]),
        record(STDOUT, &[b'x'; 60_000]),
        end(0),
    ]
    .concat();
    let cases = [
        (502, "closed the connection", Vec::new()),
        (502, "closed the connection", head.clone()),
        (502, "inside its head", [head, end(0)].concat()),
        (502, "inside its head, after 0 bytes", end(0)),
        (502, "line 1", [record(STDOUT, b"<html>\n\n"), end(0)].concat()),
        (502, "longer than", long),
        (502, "version is 72", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        (503, "Overloaded", end(2)),
    ];
    for (status, reason, bytes) in cases {
        let response = stage.answer(&bytes).await.unwrap();
        assert_eq!(response.status(), status, "{reason}");
        assert!(
            text(&response).contains(reason),
            "{reason:?} is in {:?}",
            text(&response)
        );
    }
}

#[tokio::test]
async fn records_may_come_in_any_mixture() {
    let stage = Stage::new();
    let parts = [
        record(STDERR, b"PHP message: hello\n"),
        record(STDOUT, b"X-One: 1\r\nSet-Cookie: a=1\r\nSet-Co"),
        record(STDERR, b"in between"),
        record(STDOUT, b"okie: b=2\r\n\r\nbo"),
        record(STDOUT, b"dy"),
        record(STDOUT, b""),
        end(0),
    ];
    let response = stage.answer(&parts.concat()).await.unwrap();
    assert_eq!(text(&response), "body");
    assert_eq!(
        response
            .headers()
            .get_all("set-cookie")
            .iter()
            .collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
}

#[tokio::test]
async fn a_response_that_breaks_off_is_cut_for_the_client_too() {
    let stage = Stage::new();
    let begun = record(STDOUT, b"Content-Type: text/plain\r\n\r\nbegun");
    assert!(
        stage.answer(&begun).await.is_err(),
        "the client must not take it for whole"
    );
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_connection_to_php() {
    let stage = Stage::new();
    let mut client = TcpStream::connect(stage.front.address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        .await
        .unwrap();
    let mut peer = stage.accept().await;
    drop(client);
    let left = timeout(PATIENCE, peer.read_u8())
        .await
        .expect("the connection ends");
    assert_eq!(left.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn while_the_client_waits_the_connection_to_php_stays_open_both_ways() {
    let stage = Stage::new();
    let response = tokio::join!(stage.front.get("/"), async {
        let mut peer = stage.accept().await;
        // A worker that looks whether its client is gone must find nothing to read, not an end.
        assert_eq!(
            peer.try_read(&mut [0]).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
        peer.write_all(&record(STDOUT, b"A: b\n\nyes")).await.unwrap();
        peer.write_all(&end(0)).await.unwrap();
        // Like php-fpm, which waits for our close before it takes the next request.
        assert_eq!(
            timeout(PATIENCE, peer.read(&mut [0]))
                .await
                .expect("the front closes")
                .unwrap(),
            0
        );
    });
    assert_eq!(text(&response.0), "yes");
}

#[tokio::test]
async fn a_script_that_answers_head_is_not_aborted() {
    let stage = Stage::new();
    let request = Request::head("/").body(empty()).unwrap();
    let (response, ()) = tokio::join!(stage.front.send(request), async {
        let mut peer = stage.accept().await;
        peer.write_all(&record(STDOUT, b"A: b\n\n")).await.unwrap();
        // More than the socket's buffers hold: it can be written only if somebody reads.
        for _ in 0..100 {
            peer.write_all(&record(STDOUT, &[b'x'; 60_000]))
                .await
                .expect("the front goes on reading");
        }
        peer.write_all(&end(0)).await.unwrap();
    });
    assert_eq!(
        (response.headers()["a"].as_bytes(), text(&response)),
        (&b"b"[..], "")
    );
}

#[tokio::test]
async fn shutdown_lets_a_request_finish() {
    let stage = Stage::new();
    let Stage {
        front,
        pool,
        _directory,
    } = stage;
    let Front {
        address,
        stop,
        running,
    } = front;
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        .await
        .unwrap();
    let (mut peer, _) = pool.accept().await.unwrap();
    stop.send(()).unwrap();
    // The listener is gone once nobody can connect; only then is it certain that shutdown has begun.
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(PATIENCE, refused)
        .await
        .expect("the front stops listening");
    peer.write_all(&[record(STDOUT, b"A: b\n\nlast words"), end(0)].concat())
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .expect("the front closes")
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("last words"),
        "{answer}"
    );
    timeout(PATIENCE, running)
        .await
        .expect("the front stops")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let stage = Stage::new();
    let mut client = TcpStream::connect(stage.front.address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        .await
        .unwrap();
    let (mut peer, _) = stage.pool.accept().await.unwrap();
    tokio::time::pause(); // From here on timers run out as soon as nothing else happens.
    stage.front.stop().await;
    let mut request = Vec::new();
    peer.read_to_end(&mut request)
        .await
        .expect("the front has let go of the pool");
    assert!(!request.is_empty());
}

#[tokio::test]
async fn without_a_pool_there_is_an_explanation() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("index.php"), "").unwrap();
    let front = Front::start(directory.path(), directory.path().join("none.sock"));
    let response = front.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(text(&response).contains("none.sock"), "{}", text(&response));
}

#[tokio::test]
async fn a_root_that_is_none_is_refused() {
    let start = |root: &Path| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = FrontOptions {
            root: root.to_owned(),
            fastcgi: "none.sock".into(),
        };
        run(listener, options, std::future::pending())
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(
        start(file.path()).await,
        Err(FrontError::NotADirectory { .. })
    ));
    assert!(matches!(
        start(Path::new("/nowhere/at/all")).await,
        Err(FrontError::Root { .. })
    ));
}
