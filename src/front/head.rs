//! Reads the head of a CGI response (RFC 3875 section 6): header lines, an empty line, then the body.
//!
//! PHP's output is not trusted: a head that is not one, or one that would let the body be misread, is refused
//! whole rather than repaired.

use hyper::StatusCode;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};

/// Most bytes of a head, the empty line included.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Status and headers of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// What came is not the head of a CGI response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    #[error("the response head is longer than {MAX_BYTES} bytes (does the page set too many cookies?)")]
    TooLong,
    #[error("the response ends inside its head, after {bytes} bytes")]
    Truncated { bytes: usize },
    #[error("the response head has no header")]
    Empty,
    #[error("line {line} of the response head is not \"name: value\"")]
    Line { line: usize },
    #[error("the Status header is not a number from 200 to 599")]
    Status,
    #[error("the Content-Length header is not a number, or there are several")]
    ContentLength,
}

/// Collects a head that arrives in parts.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    seen: Vec<u8>,
}

impl HeadReader {
    /// Takes the next part. `Some`: the head is whole, and the number of bytes of `part` that belong to it; the
    /// rest is body. The reader is done then.
    ///
    /// # Errors
    /// [`HeadError`]: the response cannot be used.
    pub(super) fn feed(&mut self, part: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        let before = self.seen.len();
        self.seen
            .extend_from_slice(&part[..part.len().min(MAX_BYTES - before)]);
        // An end may straddle the parts: "\n\r" and "\n".
        match end_of_head(&self.seen, before.saturating_sub(3)) {
            Some(end) => Ok(Some((parse(&self.seen[..end])?, end - before))),
            None if self.seen.len() == MAX_BYTES => Err(HeadError::TooLong),
            None => Ok(None),
        }
    }

    /// The error to report when nothing more comes.
    pub(super) fn truncated(&self) -> HeadError {
        HeadError::Truncated {
            bytes: self.seen.len(),
        }
    }
}

/// Index after the first empty line, looking from `from`. Lines end in LF or CRLF, as CGI allows.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let at_start = |ending: &[u8]| bytes.starts_with(ending).then_some(ending.len());
    at_start(b"\n").or_else(|| at_start(b"\r\n")).or_else(|| {
        (from..bytes.len())
            .filter(|&at| bytes[at] == b'\n')
            .find_map(|at| match bytes[at + 1..] {
                [b'\n', ..] => Some(at + 2),
                [b'\r', b'\n', ..] => Some(at + 3),
                _ => None,
            })
    })
}

fn parse(head: &[u8]) -> Result<Head, HeadError> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    let lines = head
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for (index, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        let (name, value) = header(line).ok_or(HeadError::Line { line: index + 1 })?;
        if name == "status" {
            status = Some(parse_status(&value).ok_or(HeadError::Status)?);
        } else if !is_hop_by_hop(&name) {
            headers.append(name, value);
        }
    }
    if status.is_none() && headers.is_empty() {
        return Err(HeadError::Empty);
    }
    check_content_length(&headers)?;
    // RFC 3875 section 6.2.4: a Location without Status is a redirect.
    let implied = if headers.contains_key(LOCATION) {
        StatusCode::FOUND
    } else {
        StatusCode::OK
    };
    Ok(Head {
        status: status.unwrap_or(implied),
        headers,
    })
}

/// A line that begins with a space would continue the one before; HTTP has given that up (RFC 9112 section
/// 5.2), and it is no header here.
fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// `404 Not Found`: the number counts, the words are the HTTP library's own. 1xx is not a final answer.
fn parse_status(value: &HeaderValue) -> Option<StatusCode> {
    let number = value.as_bytes().split(|&byte| byte == b' ').next()?;
    StatusCode::from_bytes(number)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
}

/// About this connection to us, not about the response: HTTP framing is the HTTP library's.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || name == "keep-alive"
        || name == "proxy-connection"
}

fn check_content_length(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let valid = values.next().is_none_or(|value| {
        let digits = value.as_bytes();
        !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
    });
    if valid && values.next().is_none() {
        Ok(())
    } else {
        Err(HeadError::ContentLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        HeadReader::default().feed(text)
    }

    fn head(text: &str) -> Head {
        read(text.as_bytes()).unwrap().expect("the head is whole").0
    }

    #[test]
    fn status_is_said_or_implied() {
        let cases = [
            ("Content-Type: text/html\r\n\r\n", 200),
            ("Status: 404 Not Found\r\nContent-Type: text/html\r\n\r\n", 404),
            ("status:503\n\n", 503),
            ("Location: /there\r\n\r\n", 302),
            ("Status: 201 Created\r\nLocation: /there\r\n\r\n", 201),
            ("Status: 500\n\r\n", 500),
        ];
        for (text, status) in cases {
            assert_eq!(head(text).status.as_u16(), status, "{text:?}");
        }
    }

    #[test]
    fn headers_are_kept_in_order_and_framing_is_not() {
        let head = head(
            "Set-Cookie: a=1\r\nX-Padded: \t x y  \r\nset-cookie: b=2\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\nX-Latin: caf\u{e9}\r\nStatus: 200 OK\r\n\r\nbody: no",
        );
        let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(head.headers["x-padded"], "x y");
        assert_eq!(head.headers["x-latin"].as_bytes(), "café".as_bytes());
        assert_eq!(head.headers.len(), 4, "{:?}", head.headers);
    }

    #[test]
    fn the_body_begins_where_the_head_ends_wherever_it_is_cut() {
        let text = b"Content-Type: a/b\r\nX: y\r\n\r\n\r\nbody";
        for cut in 0..text.len() {
            let mut reader = HeadReader::default();
            let (first, second) = text.split_at(cut);
            let (head, end) = match reader.feed(first).unwrap() {
                Some((head, end)) => (head, end),
                None => {
                    let (head, end) = reader.feed(second).unwrap().expect("the head is whole");
                    (head, first.len() + end)
                }
            };
            assert_eq!(&text[end..], b"\r\nbody", "cut at {cut}");
            assert_eq!(head.headers.len(), 2);
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let cases: [(&[u8], HeadError); 12] = [
            (b"\r\nbody", HeadError::Empty),
            (b"\n", HeadError::Empty),
            (b"Connection: close\n\n", HeadError::Empty),
            (b"<h1>hello</h1>\n\n", HeadError::Line { line: 1 }),
            (b"A: b\n folded\n\n", HeadError::Line { line: 2 }),
            (b"A : b\n\n", HeadError::Line { line: 1 }),
            (b"A: b\rC: d\n\n", HeadError::Line { line: 1 }),
            (b"A: b\0\n\n", HeadError::Line { line: 1 }),
            (b"Status: 100 Continue\n\n", HeadError::Status),
            (b"Status: fine\n\n", HeadError::Status),
            (
                b"Content-Length: 1\nContent-Length: 2\n\n",
                HeadError::ContentLength,
            ),
            (b"Content-Length: -1\n\n", HeadError::ContentLength),
        ];
        for (text, error) in cases {
            assert_eq!(read(text), Err(error), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let mut reader = HeadReader::default();
        let line = format!("X: {}\r\n", "x".repeat(995)).into_bytes();
        let fed = (0..100).find_map(|_| reader.feed(&line).err());
        assert_eq!(fed, Some(HeadError::TooLong));
        assert_eq!(read(&vec![b'a'; 1 << 20]), Err(HeadError::TooLong));
    }

    #[test]
    fn an_unfinished_head_waits() {
        let mut reader = HeadReader::default();
        assert_eq!(reader.feed(b"A: b\r\n"), Ok(None));
        assert_eq!(reader.feed(b""), Ok(None));
        assert_eq!(reader.truncated(), HeadError::Truncated { bytes: 6 });
    }
}
