//! The status line of a response. Source of the forms: what php-fpm sends.

use glasspool_fastcgi::ResponseWriter;

/// Longest status line php-fpm sends, with its `Status: ` and without the line end.
const STATUS_LINE_BYTES: usize = 1023;

/// Adds the status line. `line` is what a script set with `header("HTTP/1.1 …")`, or
/// empty; `raw` sends it as it is (`cgi.rfc2616_headers`).
pub(crate) fn status(writer: &mut ResponseWriter, code: i32, line: &[u8], raw: bool) {
    let own = line
        .starts_with(b"HTTP/")
        .then(|| line.iter().position(|b| *b == b' '))
        .flatten();
    let mut text = Vec::with_capacity(64);
    match own {
        Some(_) if raw => text.extend_from_slice(line),
        Some(space) => {
            text.extend_from_slice(b"Status:");
            text.extend_from_slice(&line[space..]);
        }
        None => {
            text.extend_from_slice(if raw { b"HTTP/1.0 " } else { b"Status: " });
            text.extend_from_slice(code.to_string().as_bytes());
            if let Some(reason) = reason(code) {
                text.push(b' ');
                text.extend_from_slice(reason.as_bytes());
            }
        }
    }
    text.truncate(STATUS_LINE_BYTES);
    text.extend_from_slice(b"\r\n");
    writer.stdout(&text);
}

/// The value of a header that names the route, `X-Glasspool-Route: /user/{id}`.
pub(crate) fn route(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"x-glasspool-route:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
}

/// Reason phrases of the IANA registry of HTTP status codes, as far as php-fpm knows
/// them (RFC 9110, 6585, 7725, 2295, 5842).
fn reason(code: i32) -> Option<&'static str> {
    Some(match code {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        208 => "Already Reported",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(code: i32, own: &[u8], raw: bool) -> String {
        let mut writer = ResponseWriter::new();
        writer.begin(1);
        status(&mut writer, code, own, raw);
        let content = &writer.pending()[8..];
        let end = content.windows(2).position(|w| w == b"\r\n").expect("a line");
        String::from_utf8_lossy(&content[..end]).into_owned()
    }

    #[test]
    fn the_header_of_the_route() {
        assert_eq!(route(b"X-Glasspool-Route: /user/{id} "), Some(&b"/user/{id}"[..]));
        assert_eq!(route(b"x-glasspool-ROUTE:"), Some(&b""[..]));
        assert_eq!(route(b"X-Glasspool-Routes: /"), None);
        assert_eq!(route(b""), None);
    }

    #[test]
    fn forms_of_the_status_line() {
        assert_eq!(line(404, b"", false), "Status: 404 Not Found");
        assert_eq!(line(299, b"", false), "Status: 299");
        assert_eq!(line(500, b"HTTP/1.1 201 Made up", false), "Status: 201 Made up");
        assert_eq!(line(500, b"HTTP/1.1 201 Made up", true), "HTTP/1.1 201 Made up");
        assert_eq!(line(201, b"nonsense", false), "Status: 201 Created");
        let long = format!("HTTP/1.1 201 {}", "x".repeat(3000));
        assert_eq!(line(201, long.as_bytes(), false).len(), STATUS_LINE_BYTES);
    }
}
