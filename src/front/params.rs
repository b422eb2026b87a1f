//! The CGI variables of a request: pure. The names and meanings are RFC 3875's, and those that nginx's
//! `fastcgi_params` adds, because PHP applications know that set.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;

use hyper::Version;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use super::route::Script;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    pub(super) server: SocketAddr,
    pub(super) client: SocketAddr,
}

type Bytes<'a> = Cow<'a, [u8]>;

/// Names and values for a request of `script` below `root`. `body_bytes`: length of the body, if there is one.
pub(super) fn params<'a>(
    request: &'a Parts,
    script: &'a Script,
    root: &'a Path,
    connection: Connection,
    body_bytes: Option<u64>,
) -> Vec<(Bytes<'a>, Bytes<'a>)> {
    use std::os::unix::ffi::OsStrExt;

    let Connection { server, client } = connection;
    let uri = &request.uri;
    let content_length = body_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
    let document_uri = [script.name.as_slice(), script.path_info.as_slice()].concat();
    let request_uri = uri.path_and_query().map_or("/", |part| part.as_str());
    let content_type = request
        .headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());

    let mut params: Vec<(Bytes<'a>, Bytes<'a>)> = Vec::with_capacity(24 + request.headers.len());
    let mut set = |name: &'static str, value: Bytes<'a>| params.push((name.as_bytes().into(), value));
    set("QUERY_STRING", uri.query().unwrap_or_default().as_bytes().into());
    set("REQUEST_METHOD", request.method.as_str().as_bytes().into());
    set("CONTENT_TYPE", content_type.into());
    set("CONTENT_LENGTH", content_length.into_bytes().into());
    set("SCRIPT_NAME", script.name.as_slice().into());
    set("SCRIPT_FILENAME", script.file.as_os_str().as_bytes().into());
    set("PATH_INFO", script.path_info.as_slice().into());
    set("REQUEST_URI", request_uri.as_bytes().into());
    set("DOCUMENT_URI", document_uri.into());
    set("DOCUMENT_ROOT", root.as_os_str().as_bytes().into());
    set("SERVER_PROTOCOL", protocol(request.version).as_bytes().into());
    set("REQUEST_SCHEME", b"http".into());
    set("GATEWAY_INTERFACE", b"CGI/1.1".into());
    set(
        "SERVER_SOFTWARE",
        concat!("glasspool/", env!("CARGO_PKG_VERSION")).as_bytes().into(),
    );
    set(
        "REMOTE_ADDR",
        client.ip().to_canonical().to_string().into_bytes().into(),
    );
    set("REMOTE_PORT", client.port().to_string().into_bytes().into());
    set(
        "SERVER_ADDR",
        server.ip().to_canonical().to_string().into_bytes().into(),
    );
    set("SERVER_PORT", server.port().to_string().into_bytes().into());
    set("SERVER_NAME", server_name(request, server).into_bytes().into());
    // php-cgi refuses to run without it (cgi.force_redirect).
    set("REDIRECT_STATUS", b"200".into());
    params.extend(header_params(request));
    params
}

/// `HTTP_*`, one per name: repeated headers are joined as RFC 9110 section 5.3 has it, cookies with a
/// semicolon.
fn header_params(request: &Parts) -> impl Iterator<Item = (Bytes<'_>, Bytes<'_>)> {
    request
        .headers
        .keys()
        .filter(|name| is_passed_on(name))
        .map(|name| {
            let variable = format!("HTTP_{}", name.as_str().replace('-', "_").to_ascii_uppercase());
            (variable.into_bytes().into(), header_value(request, name))
        })
}

/// `Proxy` would become HTTP_PROXY, which many HTTP clients in PHP obey (CVE-2016-5385, "httpoxy"). A name
/// with an underscore could pose as another header. Length and type of the body have their own variables; the
/// transfer coding has been undone.
fn is_passed_on(name: &HeaderName) -> bool {
    name != "proxy"
        && !name.as_str().contains('_')
        && ![CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING].contains(name)
}

fn header_value<'a>(request: &'a Parts, name: &HeaderName) -> Bytes<'a> {
    if let (&HOST, Some(authority)) = (name, request.uri.authority()) {
        // RFC 9112 section 3.2.2: an address in the request line wins over Host.
        return authority.as_str().as_bytes().into();
    }
    let mut values = request.headers.get_all(name).iter().map(|value| value.as_bytes());
    let first = values.next().unwrap_or_default();
    let rest: Vec<&[u8]> = values.collect();
    if rest.is_empty() {
        return first.into();
    }
    let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
    rest.into_iter()
        .fold(first.to_vec(), |joined, value| {
            [&joined, separator, value].concat()
        })
        .into()
}

/// The host that the client asked for, without its port; our address if it named none.
fn server_name(request: &Parts, server: SocketAddr) -> String {
    let asked = match request.uri.authority() {
        Some(authority) => Some(authority.host().to_owned()),
        None => request
            .headers
            .get(HOST)
            .and_then(|host| hyper::http::uri::Authority::try_from(host.as_bytes()).ok())
            .map(|authority| authority.host().to_owned()),
    };
    asked
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| server.ip().to_canonical().to_string())
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hyper::Request;

    use super::*;

    fn variables(request: Request<()>, script: &Script, body: Option<u64>) -> BTreeMap<String, String> {
        let (parts, ()) = request.into_parts();
        let connection = Connection {
            server: "127.0.0.1:8080".parse().unwrap(),
            client: "[::ffff:192.0.2.7]:50000".parse().unwrap(),
        };
        let text = |bytes: Bytes<'_>| String::from_utf8(bytes.into_owned()).unwrap();
        let pairs = params(&parts, script, Path::new("/site"), connection, body);
        let count = pairs.len();
        let variables: BTreeMap<_, _> = pairs
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        assert_eq!(variables.len(), count, "no variable is sent twice");
        variables
    }

    fn script(name: &str, path_info: &str) -> Script {
        Script {
            file: format!("/site{name}").into(),
            name: name.into(),
            path_info: path_info.into(),
        }
    }

    #[test]
    fn a_whole_request() {
        let request = Request::post("/app.php/a%20b?x=1&y")
            .header("host", "example.test:8080")
            .header("content-type", "text/plain")
            .header("content-length", "5")
            .header("x-one-two", "3")
            .body(())
            .unwrap();
        let found = variables(request, &script("/app.php", "/a b"), Some(5));
        let software = concat!("glasspool/", env!("CARGO_PKG_VERSION"));
        let expected = [
            ("CONTENT_LENGTH", "5"),
            ("CONTENT_TYPE", "text/plain"),
            ("DOCUMENT_ROOT", "/site"),
            ("DOCUMENT_URI", "/app.php/a b"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("HTTP_HOST", "example.test:8080"),
            ("HTTP_X_ONE_TWO", "3"),
            ("PATH_INFO", "/a b"),
            ("QUERY_STRING", "x=1&y"),
            ("REDIRECT_STATUS", "200"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "50000"),
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_SCHEME", "http"),
            ("REQUEST_URI", "/app.php/a%20b?x=1&y"),
            ("SCRIPT_FILENAME", "/site/app.php"),
            ("SCRIPT_NAME", "/app.php"),
            ("SERVER_ADDR", "127.0.0.1"),
            ("SERVER_NAME", "example.test"),
            ("SERVER_PORT", "8080"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_SOFTWARE", software),
        ];
        let expected: BTreeMap<String, String> = expected
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(found, expected);
    }

    #[test]
    fn headers_that_could_deceive_are_dropped_and_repeated_ones_joined() {
        let request = Request::get("/")
            .header("proxy", "http://evil.test")
            .header("x_forwarded_for", "127.0.0.1")
            .header("transfer-encoding", "chunked")
            .header("accept", "a")
            .header("accept", "b")
            .header("cookie", "c=1")
            .header("cookie", "d=2")
            .header("cookie", "e=3")
            .body(())
            .unwrap();
        let found = variables(request, &script("/index.php", ""), None);
        let headers: Vec<_> = found
            .iter()
            .filter(|(name, _)| name.starts_with("HTTP_"))
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(headers, ["a, b", "c=1; d=2; e=3"]);
        assert_eq!(found["CONTENT_LENGTH"], "");
    }

    #[test]
    fn server_name_is_what_was_asked_for() {
        let name = |request: hyper::http::request::Builder| {
            variables(request.body(()).unwrap(), &script("/index.php", ""), None)["SERVER_NAME"].clone()
        };
        assert_eq!(name(Request::get("/").header("host", "[::1]:80")), "[::1]");
        assert_eq!(name(Request::get("/").header("host", "a b")), "127.0.0.1");
        assert_eq!(name(Request::get("/")), "127.0.0.1");
        assert_eq!(
            name(Request::get("http://line.test/").header("host", "header.test")),
            "line.test"
        );
    }
}
