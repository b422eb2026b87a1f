//! The request that the load generator sends, as nginx would.

use std::path::Path;

/// The parameters of Debian's `/etc/nginx/fastcgi_params` (nginx 1.22), plus SCRIPT_FILENAME, as nginx fills
/// them for `wrk`'s request for `path?query` in `root`.
pub fn params(root: &Path, path: &str, query: &str) -> Vec<(String, String)> {
    let uri = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let root = root.to_string_lossy();
    let pairs = [
        ("QUERY_STRING", query),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SCRIPT_NAME", path),
        ("REQUEST_URI", &uri),
        ("DOCUMENT_URI", path),
        ("DOCUMENT_ROOT", &root),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx/1.22.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "54321"),
        ("REMOTE_USER", ""),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_PORT", "8080"),
        ("SERVER_NAME", "localhost"),
        ("REDIRECT_STATUS", "200"),
        ("SCRIPT_FILENAME", &format!("{root}{path}")),
        ("HTTP_HOST", "127.0.0.1:8080"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
