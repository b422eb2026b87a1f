//! One FastCGI request over a unix socket, as a web server sends it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::{Event, RequestEncoder, ResponseReader};

/// Sends a request and returns the body of the complete answer.
pub(crate) fn ask(socket: &Path, params: &[(&str, &str)]) -> io::Result<String> {
    answer(socket, params).map(|(_, body)| body)
}

/// The same, and its headers.
pub(crate) fn answer(socket: &Path, params: &[(&str, &str)]) -> io::Result<(String, String)> {
    let mut connection = UnixStream::connect(socket)?;
    let mut request = Vec::new();
    RequestEncoder::begin(&mut request, 1, Role::Responder, false);
    RequestEncoder::params(&mut request, 1, params.iter().copied());
    RequestEncoder::stdin_end(&mut request, 1);
    connection.write_all(&request)?;
    let (mut reader, mut input, mut body) = (ResponseReader::new(), Vec::new(), Vec::new());
    loop {
        let mut buf = [0; 4096];
        let count = connection.read(&mut buf)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&buf[..count]);
        loop {
            let fed = reader.feed(&input).map_err(io::Error::other)?;
            if let Some(Event::Stdout(range)) = &fed.event {
                body.extend_from_slice(&input[range.clone()]);
            }
            input.drain(..fed.consumed);
            match fed.event {
                None => break,
                Some(Event::End(_)) => {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    let (head, body) = body.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
                    return Ok((head.to_owned(), body.to_owned()));
                }
                Some(Event::Stdout(_) | Event::Stderr(_) | Event::Values(_) | Event::UnknownType(_)) => {}
            }
        }
    }
}

/// The parameters that run a script.
pub(crate) fn script(path: &str) -> [(&str, &str); 4] {
    [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_FILENAME", path),
        ("SCRIPT_NAME", "/test.php"),
        ("REQUEST_URI", "/test.php"),
    ]
}
