//! What a request path means: pure, with the file system behind a question.
//!
//! The order is that of nginx with `index index.php index.html`, `try_files $uri $uri/ /index.php?$args`, and
//! `fastcgi_split_path_info ^(.+?\.php)(/.*)$`. Differences, all on the side of refusing: a path with `.` or
//! `..` segments is not resolved but refused; a segment that begins with a dot is never found (except
//! `.well-known`, RFC 8615); a file that may hold PHP source under another name (`index.php~`, `x.php.bak`,
//! `lib.inc`) is not sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// Escaped in a redirect: all but what a path segment may hold unescaped (RFC 3986 section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Most segments in a path: each costs a stat(2) while a script with path info is looked for.
const MAX_SEGMENTS: usize = 128;

/// Extensions under which PHP source is found, beside any name that has `.php` in it.
const SOURCE_EXTENSIONS: [&[u8]; 5] = [b"phtml", b"phar", b"phps", b"inc", b"pht"];

/// What is at a path of the file system, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Nothing, or nothing that can be served: a socket, a device, a name that we may not look at.
    Nothing,
}

/// How to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Send this file.
    Static(PathBuf),
    /// Run this script.
    Script(Script),
    /// The path is a directory without its final slash: send the client to this path (percent-encoded).
    AddSlash(String),
    /// The path is a directory that has no index.
    NoIndex,
    /// Nothing there, or nothing that may be seen.
    NotFound,
    /// The path is malformed or tries to climb; the text tells how.
    Refused(&'static str),
}

/// A script to run. Paths are bytes, as Linux has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// In the file system: the document root and `name`.
    pub(super) file: PathBuf,
    /// Path of the script in the site, with a leading slash, not encoded.
    pub(super) name: Vec<u8>,
    /// What follows the script's name in the path, with a leading slash, not encoded; empty if nothing does.
    pub(super) path_info: Vec<u8>,
}

/// Decides what `path`, as it stands in the request line without the query, means below `root`.
/// Asks `probe` about at most [`MAX_SEGMENTS`] and a few more paths, all of them inside `root`.
pub(super) fn route(path: &str, root: &Path, probe: impl Fn(&Path) -> Kind) -> Route {
    let (segments, slash) = match segments(path) {
        Ok(parsed) => parsed,
        Err(reason) => return Route::Refused(reason),
    };
    if segments
        .iter()
        .enumerate()
        .any(|(index, segment)| hidden(index, segment))
    {
        return Route::NotFound;
    }
    let site = Site { root, probe };
    if let Some(script) = site.script_within(&segments, slash) {
        return Route::Script(script);
    }
    let target = site.file(&segments);
    match (site.probe)(&target) {
        Kind::Directory if slash => site.index(&segments),
        Kind::Directory => Route::AddSlash(encode(&segments)),
        Kind::File if !slash && !source(&segments) => Route::Static(target),
        // A missing .php is an error of the link, not a page of the front controller.
        Kind::File | Kind::Nothing if source(&segments) => Route::NotFound,
        Kind::File | Kind::Nothing => site.front_controller(),
    }
}

/// The root, and the question.
struct Site<'a, P> {
    root: &'a Path,
    probe: P,
}

impl<P: Fn(&Path) -> Kind> Site<'_, P> {
    /// The first segment that ends in `.php` and is a file runs; the rest is its path info.
    fn script_within(&self, segments: &[Vec<u8>], slash: bool) -> Option<Script> {
        let at = (0..segments.len()).find(|&at| {
            segments[at].ends_with(b".php") && (self.probe)(&self.file(&segments[..=at])) == Kind::File
        })?;
        let (script, rest) = segments.split_at(at + 1);
        let mut path_info = join(rest);
        if slash {
            path_info.push(b'/');
        }
        Some(Script {
            path_info,
            ..self.script(script)
        })
    }

    fn index(&self, directory: &[Vec<u8>]) -> Route {
        let with = |name: &[u8]| [directory, &[name.to_vec()]].concat();
        let php = with(b"index.php");
        if (self.probe)(&self.file(&php)) == Kind::File {
            return Route::Script(self.script(&php));
        }
        let html = self.file(&with(b"index.html"));
        if (self.probe)(&html) == Kind::File {
            Route::Static(html)
        } else {
            Route::NoIndex
        }
    }

    fn front_controller(&self) -> Route {
        let index = [b"index.php".to_vec()];
        if (self.probe)(&self.file(&index)) == Kind::File {
            Route::Script(self.script(&index))
        } else {
            Route::NotFound
        }
    }

    fn script(&self, segments: &[Vec<u8>]) -> Script {
        Script {
            file: self.file(segments),
            name: join(segments),
            path_info: Vec::new(),
        }
    }

    fn file(&self, segments: &[Vec<u8>]) -> PathBuf {
        let mut file = self.root.to_path_buf();
        file.extend(segments.iter().map(|segment| OsStr::from_bytes(segment)));
        file
    }
}

/// Decodes and splits; empty segments are merged away, as nginx does. Also: does the path end in a slash?
///
/// Decoding comes before splitting, so that `%2F` and `%2e%2e` are seen as what the file system would make
/// of them; it is done once, so that `%252e` is a name with a percent sign.
fn segments(path: &str) -> Result<(Vec<Vec<u8>>, bool), &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with a slash");
    }
    if !escapes_are_whole(path.as_bytes()) {
        return Err("a percent sign in the path is not followed by two hexadecimal digits");
    }
    let decoded: Vec<u8> = percent_decode(path.as_bytes()).collect();
    if decoded.contains(&0) {
        return Err("the path holds a NUL byte");
    }
    let segments: Vec<Vec<u8>> = decoded
        .split(|&byte| byte == b'/')
        .filter(|segment| !segment.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    if segments.len() > MAX_SEGMENTS {
        return Err("the path has too many segments");
    }
    if segments.iter().any(|segment| segment == b"." || segment == b"..") {
        return Err("the path holds a . or .. segment");
    }
    Ok((segments, decoded.ends_with(b"/")))
}

fn escapes_are_whole(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'%').skip(1).all(|after| {
        after
            .first_chunk::<2>()
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

fn hidden(index: usize, segment: &[u8]) -> bool {
    segment.starts_with(b".") && !(index == 0 && segment == b".well-known")
}

/// Does the last segment look like PHP source, on file systems that ignore case too?
fn source(segments: &[Vec<u8>]) -> bool {
    let Some(name) = segments.last().map(|name| name.to_ascii_lowercase()) else {
        return false;
    };
    let extension = name
        .iter()
        .rposition(|&byte| byte == b'.')
        .map(|dot| &name[dot + 1..]);
    name.windows(4).any(|part| part == b".php")
        || extension.is_some_and(|extension| SOURCE_EXTENSIONS.contains(&extension))
}

fn join(segments: &[Vec<u8>]) -> Vec<u8> {
    segments
        .iter()
        .flat_map(|segment| [b"/".as_slice(), segment.as_slice()])
        .collect::<Vec<_>>()
        .concat()
}

/// The path of a directory for a Location header. Made from the segments, so that `//host/dir` cannot
/// become an address on another host.
fn encode(segments: &[Vec<u8>]) -> String {
    let mut path = String::from("/");
    for segment in segments {
        path.extend(percent_encode(segment, SEGMENT));
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 15] = [
        "index.php",
        "app.php",
        "style.css",
        "a b.txt",
        "index.php~",
        "old.PHP",
        "lib.inc",
        "x.phtml",
        ".env",
        "inc",
        "blog/index.php",
        "docs/index.html",
        ".git/config",
        ".well-known/security.txt",
        "app.php.d/x.txt",
    ];
    const DIRECTORIES: [&str; 8] = [
        "",
        "blog",
        "docs",
        "empty",
        "a b",
        ".git",
        ".well-known",
        "app.php.d",
    ];

    fn probe(path: &Path) -> Kind {
        let below = path
            .strip_prefix("/site")
            .expect("only paths in the root are asked for");
        let below = below.to_str().expect("the tables are UTF-8");
        if FILES.contains(&below) {
            Kind::File
        } else if DIRECTORIES.contains(&below) {
            Kind::Directory
        } else {
            Kind::Nothing
        }
    }

    fn script(name: &str, path_info: &str) -> Route {
        Route::Script(Script {
            file: PathBuf::from(format!("/site{name}")),
            name: name.into(),
            path_info: path_info.into(),
        })
    }

    fn file(name: &str) -> Route {
        Route::Static(PathBuf::from(format!("/site{name}")))
    }

    #[test]
    fn paths_and_what_they_mean() {
        let refused = |path| matches!(route(path, Path::new("/site"), probe), Route::Refused(_));
        let cases = [
            // Directories and their index.
            ("/", script("/index.php", "")),
            ("/blog", Route::AddSlash("/blog/".into())),
            ("/blog/", script("/blog/index.php", "")),
            ("/docs/", file("/docs/index.html")),
            ("/empty/", Route::NoIndex),
            ("/a%20b", Route::AddSlash("/a%20b/".into())),
            ("//blog", Route::AddSlash("/blog/".into())),
            // Files.
            ("/style.css", file("/style.css")),
            ("//style.css", file("/style.css")),
            ("/a%20b.txt", file("/a b.txt")),
            ("/inc", file("/inc")), // A name, not an extension.
            ("/.well-known/security.txt", file("/.well-known/security.txt")),
            ("/app.php.d/x.txt", file("/app.php.d/x.txt")),
            // Scripts.
            ("/app.php", script("/app.php", "")),
            ("/app%2ephp", script("/app.php", "")),
            ("/app.php/", script("/app.php", "/")),
            ("/app.php/some/thing", script("/app.php", "/some/thing")),
            ("/app.php/a%2Fb/", script("/app.php", "/a/b/")),
            ("/app.php/other.php", script("/app.php", "/other.php")),
            ("/blog/index.php/x", script("/blog/index.php", "/x")),
            // The front controller.
            ("/report/42", script("/index.php", "")),
            ("/style.css/", script("/index.php", "")),
            ("/%252e%252e/x", script("/index.php", "")),
            // Never.
            ("/missing.php", Route::NotFound),
            ("/blog/missing.php", Route::NotFound),
            ("/index.php~", Route::NotFound),
            ("/old.PHP", Route::NotFound),
            ("/lib.inc", Route::NotFound),
            ("/x.phtml", Route::NotFound),
            ("/.env", Route::NotFound),
            ("/%2eenv", Route::NotFound),
            ("/.git/config", Route::NotFound),
            ("/.git", Route::NotFound),
            ("/blog/.well-known/x", Route::NotFound),
            ("/app.php/.hidden", Route::NotFound),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path, Path::new("/site"), probe), expected, "{path}");
        }
        for path in [
            "",
            "*",
            "style.css",
            "/..",
            "/../etc/passwd",
            "/blog/../style.css",
            "/%2e%2e/etc/passwd",
            "/..%2fetc/passwd",
            "/%2E%2E%2Fetc%2Fpasswd",
            "/./style.css",
            "/style.css%00.txt",
            "/app.php%00",
            "/app.php/../x",
            "/100%",
            "/%2",
            "/%zz",
            "/%+1",
        ] {
            assert!(refused(path), "{path}");
        }
        assert!(refused(&"/a".repeat(MAX_SEGMENTS + 1)));
    }

    #[test]
    fn names_that_are_not_utf8_are_names() {
        let seen = |path: &Path| {
            if path.as_os_str().as_bytes() == b"/site/\xff.txt" {
                Kind::File
            } else {
                Kind::Nothing
            }
        };
        let expected = PathBuf::from(OsStr::from_bytes(b"/site/\xff.txt"));
        assert_eq!(
            route("/%ff.txt", Path::new("/site"), seen),
            Route::Static(expected)
        );
    }

    #[test]
    fn a_site_without_index_has_no_front_controller() {
        let nothing = |path: &Path| {
            if path == Path::new("/site") {
                Kind::Directory
            } else {
                Kind::Nothing
            }
        };
        assert_eq!(route("/report", Path::new("/site"), nothing), Route::NotFound);
        assert_eq!(route("/", Path::new("/site"), nothing), Route::NoIndex);
    }
}
