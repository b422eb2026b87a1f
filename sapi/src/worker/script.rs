//! Which script a request means, and what CGI's variables say about it.
//!
//! Web servers fill SCRIPT_FILENAME, PATH_INFO and their kin in different ways;
//! php-fpm repairs them, and applications depend on just how. The rules are php-fpm's
//! (`sapi/fpm/fpm/fpm_main.c` of php-src, init_request_info), stated in the comments.
//! Pure but for the two questions of [`Files`].

use glasspool_fastcgi::Params;

/// What has to be known of the file system.
pub(crate) trait Files {
    /// Whether the path leads to anything. Answered from PHP's realpath cache.
    fn exists(&self, path: &[u8]) -> bool;
    /// Whether the path leads to a regular file.
    fn is_file(&self, path: &[u8]) -> bool;
}

/// INI settings that matter here.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathSettings {
    pub(crate) fix_pathinfo: bool,
    pub(crate) discard_path: bool,
    pub(crate) doc_root: Option<Vec<u8>>,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Script {
    /// What to run; `None` answers 404.
    pub(crate) path: Option<Vec<u8>>,
    /// What PHP_SELF is built from; usually SCRIPT_NAME.
    pub(crate) request_uri: Option<Vec<u8>>,
}

/// Works out the script and repairs the parameters. Every one that is replaced keeps
/// its former value in `ORIG_<NAME>`.
pub(crate) fn resolve(params: &mut Params, settings: &PathSettings, files: &impl Files) -> Script {
    if let Some(script) = plain(params, settings, files) {
        return script;
    }
    let mut cgi = Cgi::read(params, settings);
    let Some(target) = cgi
        .script_filename
        .clone()
        .or_else(|| cgi.path_translated.clone())
    else {
        return Script::default();
    };
    cgi.strip_iis_script_name(params);
    let mut script = if settings.fix_pathinfo {
        cgi.resolve_with_path_info(params, target, files)
    } else {
        let path = match &cgi.path_translated {
            Some(translated) if !settings.discard_path => translated.clone(),
            _ => cgi.script_filename.clone().unwrap_or(target),
        };
        Script {
            path: Some(path),
            request_uri: cgi.path_info.clone().or(cgi.script_name.clone()),
        }
    };
    if script.path.as_deref().is_some_and(has_parent_component) {
        script.path = None;
    }
    script
}

/// The usual case, in which nothing is to be repaired: SCRIPT_FILENAME is the script.
fn plain(params: &Params, settings: &PathSettings, files: &impl Files) -> Option<Script> {
    let path = params.get(b"SCRIPT_FILENAME")?;
    let unusual = !settings.fix_pathinfo
        || !path.starts_with(b"/")
        || path.ends_with(b"/")
        || params.get(b"REDIRECT_URL").is_some()
        || params
            .get(b"SERVER_SOFTWARE")
            .is_some_and(|s| s.starts_with(b"Microsoft-IIS"))
        || has_parent_component(path);
    (!unusual && files.exists(path)).then(|| Script {
        path: Some(path.to_vec()),
        request_uri: params.get(b"SCRIPT_NAME").map(<[u8]>::to_vec),
    })
}

/// Whether `security.limit_extensions` lets the script be run. Each entry is a plain
/// suffix, compared byte by byte; an empty list allows all.
pub(crate) fn is_allowed(script: &[u8], extensions: &[String]) -> bool {
    extensions.is_empty()
        || extensions
            .iter()
            .any(|e| script.len() > e.len() && script.ends_with(e.as_bytes()))
}

/// The variables, as they came.
struct Cgi {
    script_filename: Option<Vec<u8>>,
    script_name: Option<Vec<u8>>,
    path_info: Option<Vec<u8>>,
    path_translated: Option<Vec<u8>>,
    redirect_url: Option<Vec<u8>>,
    document_root: Option<Vec<u8>>,
    /// SCRIPT_FILENAME came with Apache's `proxy:fcgi://…` in front of the path.
    apache: bool,
}

impl Cgi {
    fn read(params: &mut Params, settings: &PathSettings) -> Cgi {
        let get = |name: &[u8]| params.get(name).map(<[u8]>::to_vec);
        let mut cgi = Cgi {
            script_filename: get(b"SCRIPT_FILENAME"),
            script_name: get(b"SCRIPT_NAME"),
            path_info: get(b"PATH_INFO"),
            path_translated: get(b"PATH_TRANSLATED"),
            redirect_url: get(b"REDIRECT_URL"),
            document_root: get(b"DOCUMENT_ROOT"),
            apache: false,
        };
        if cgi.document_root.is_none() && settings.fix_pathinfo {
            cgi.document_root.clone_from(&settings.doc_root);
        }
        if let Some((path, apache)) = cgi.script_filename.as_deref().and_then(without_apache_prefix) {
            // The only change that leaves nothing in ORIG_SCRIPT_FILENAME.
            params.set(b"SCRIPT_FILENAME", &path);
            cgi.script_filename = Some(path);
            cgi.apache = apache;
        }
        cgi
    }

    /// IIS repeats SCRIPT_NAME at the start of PATH_INFO.
    fn strip_iis_script_name(&mut self, params: &mut Params) {
        let iis = params
            .get(b"SERVER_SOFTWARE")
            .is_some_and(|s| s.starts_with(b"Microsoft-IIS"));
        let (true, Some(name), Some(info)) = (iis, &self.script_name, &self.path_info) else {
            return;
        };
        if let Some(rest) = info.strip_prefix(&name[..]) {
            let rest = (!rest.is_empty()).then(|| rest.to_vec());
            replace(params, "PATH_INFO", rest.as_deref());
            self.path_info = rest;
        }
    }

    fn resolve_with_path_info(&mut self, params: &mut Params, target: Vec<u8>, files: &impl Files) -> Script {
        let mut target = self.script_filename.clone().unwrap_or(target);
        let mut name = self.script_name.clone();
        // Apache's Action directive: the script is what PATH_TRANSLATED says, asked
        // for as REDIRECT_URL.
        if let (false, Some(translated), Some(url)) = (self.apache, &self.path_translated, &self.redirect_url)
            && *translated != target
        {
            target.clone_from(translated);
            name = Some(url.clone());
        }
        if target.ends_with(b"/") || !files.exists(&target) {
            return self.split_target(params, &target, name, files);
        }
        if self.script_filename.as_ref() != Some(&target) {
            replace(params, "SCRIPT_FILENAME", Some(&target));
        }
        if !self.apache && self.redirect_url.is_some() {
            replace(params, "PATH_INFO", None);
            replace(params, "PATH_TRANSLATED", None);
        }
        if name != self.script_name {
            replace(params, "SCRIPT_NAME", name.as_deref());
        }
        Script {
            path: Some(target),
            request_uri: name,
        }
    }

    /// The target is no file: takes components off its end until what is left is one;
    /// what was taken off is path info.
    fn split_target(
        &self,
        params: &mut Params,
        target: &[u8],
        name: Option<Vec<u8>>,
        files: &impl Files,
    ) -> Script {
        let Some(file) = longest_file(target, files) else {
            replace(params, "SCRIPT_FILENAME", None);
            return Script {
                path: None,
                request_uri: name,
            };
        };
        let tail = &target[file.len()..];
        let mut request_uri = None;
        let info: Option<&[u8]> = if self.apache {
            (!tail.is_empty() && self.path_info.as_deref() != Some(tail)).then_some(tail)
        } else {
            self.path_info
                .as_deref()
                .filter(|i| i.len() > tail.len())
                .map(|i| &i[i.len() - tail.len()..])
        };
        let mut name = name;
        if let Some(info) = info {
            match (&self.path_info, &name) {
                (Some(whole), _) => {
                    let front = &whole[..whole.len().saturating_sub(info.len())];
                    if self.script_name.as_deref() != Some(front) {
                        replace(params, "SCRIPT_NAME", Some(front));
                    }
                    name = Some(front.to_vec());
                    request_uri.clone_from(&name);
                }
                (None, Some(full)) if self.apache => {
                    if let Some(front) = without_tail(full, tail) {
                        replace(params, "SCRIPT_NAME", Some(&front));
                        name = Some(front);
                        request_uri.clone_from(&name);
                    }
                }
                (None, _) => {}
            }
            replace(params, "PATH_INFO", Some(info));
        }
        if self.script_filename.as_deref() != Some(file) {
            replace(params, "SCRIPT_FILENAME", Some(file));
        }
        let info = info.or(self.path_info.as_deref()).unwrap_or_default();
        let root = match (&self.document_root, &name) {
            (Some(root), _) => Some(root.strip_suffix(b"/").unwrap_or(root)),
            (None, Some(name)) if contains(file, name) => Some(&file[..file.len() - name.len()]),
            (None, _) => None,
        };
        if let Some(root) = root {
            let translated = [root, info].concat();
            if self.path_translated.as_ref() != Some(&translated) {
                replace(params, "PATH_TRANSLATED", Some(&translated));
            }
        }
        Script {
            path: Some(file.to_vec()),
            request_uri: request_uri.or(name),
        }
    }
}

/// Sets or removes a parameter and keeps its former value as `ORIG_…`.
fn replace(params: &mut Params, name: &str, value: Option<&[u8]>) {
    if let Some(old) = params.get(name.as_bytes()).map(<[u8]>::to_vec) {
        params.set(format!("ORIG_{name}").as_bytes(), &old);
    }
    match value {
        Some(value) => params.set(name.as_bytes(), value),
        None => {
            params.remove(name.as_bytes());
        }
    }
}

/// Apache's mod_proxy_fcgi sends `proxy:fcgi://host:port/path?query`. Gives the path
/// and whether it had a host part; `None` without the prefix.
fn without_apache_prefix(value: &[u8]) -> Option<(Vec<u8>, bool)> {
    let rest = [&b"proxy:fcgi://"[..], b"proxy:balancer://"]
        .into_iter()
        .find_map(|prefix| {
            let (head, rest) = value.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        })?;
    let slash = rest.iter().position(|b| *b == b'/');
    let path = slash.map_or(rest, |at| &rest[at..]);
    let end = path.iter().position(|b| *b == b'?').unwrap_or(path.len());
    Some((path[..end].to_vec(), slash.is_some()))
}

/// The longest prefix, ending before a separator, that is a regular file. The work is
/// bounded by the number of components.
fn longest_file<'a>(target: &'a [u8], files: &impl Files) -> Option<&'a [u8]> {
    let mut rest = target;
    while let Some(at) = rest.iter().rposition(|b| matches!(b, b'/' | b'\\')) {
        rest = &rest[..at];
        if !rest.is_empty() && files.is_file(rest) {
            return Some(rest);
        }
    }
    None
}

/// `name` without `tail` at its end, which may stand there percent-encoded or not.
fn without_tail(name: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
    let decoded = percent_decoded(tail);
    [tail, &decoded]
        .into_iter()
        .find_map(|t| {
            name.strip_suffix(t)
                .filter(|front| !front.is_empty() && !t.is_empty())
        })
        .map(<[u8]>::to_vec)
}

/// Percent-decoding that leaves `+` alone (RFC 3986).
pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let pair = text.get(at + 1..at + 3).and_then(|p| std::str::from_utf8(p).ok());
        match pair.and_then(|p| u8::from_str_radix(p, 16).ok()) {
            Some(value) if *byte == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|w| w == needle)
}

fn has_parent_component(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(|c| c == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(&'static [&'static str]);

    impl Files for Tree {
        fn exists(&self, path: &[u8]) -> bool {
            self.is_file(path)
        }
        fn is_file(&self, path: &[u8]) -> bool {
            self.0.iter().any(|f| f.as_bytes() == path)
        }
    }

    const FIX: PathSettings = PathSettings {
        fix_pathinfo: true,
        discard_path: false,
        doc_root: None,
    };

    fn run(settings: &PathSettings, given: &[(&str, &str)]) -> (Script, Params) {
        let mut params = Params::new();
        for (name, value) in given {
            params.push(name.as_bytes(), value.as_bytes());
        }
        let script = resolve(&mut params, settings, &Tree(&["/r/a.php", "/r/b.php"]));
        (script, params)
    }

    fn shown(params: &Params, name: &str) -> Option<String> {
        params
            .get(name.as_bytes())
            .map(|v| String::from_utf8_lossy(v).into_owned())
    }

    fn script(path: Option<&str>, uri: Option<&str>) -> Script {
        Script {
            path: path.map(|p| p.as_bytes().to_vec()),
            request_uri: uri.map(|u| u.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_plain_script() {
        let (found, params) = run(
            &FIX,
            &[("SCRIPT_FILENAME", "/r/a.php"), ("SCRIPT_NAME", "/a.php")],
        );
        assert_eq!(found, script(Some("/r/a.php"), Some("/a.php")));
        assert_eq!(shown(&params, "ORIG_SCRIPT_FILENAME"), None);
    }

    #[test]
    fn path_info_at_the_end_of_the_script() {
        let (found, params) = run(
            &FIX,
            &[
                ("SCRIPT_FILENAME", "/r/a.php/foo"),
                ("SCRIPT_NAME", "/a.php/foo"),
                ("PATH_INFO", "/foo"),
                ("DOCUMENT_ROOT", "/r"),
            ],
        );
        assert_eq!(found, script(Some("/r/a.php"), Some("/a.php/foo")));
        assert_eq!(shown(&params, "SCRIPT_FILENAME").as_deref(), Some("/r/a.php"));
        assert_eq!(
            shown(&params, "ORIG_SCRIPT_FILENAME").as_deref(),
            Some("/r/a.php/foo")
        );
        assert_eq!(shown(&params, "PATH_INFO").as_deref(), Some("/foo"));
        assert_eq!(shown(&params, "PATH_TRANSLATED").as_deref(), Some("/r/foo"));
        assert_eq!(shown(&params, "SCRIPT_NAME").as_deref(), Some("/a.php/foo"));
    }

    #[test]
    fn apaches_proxy_prefix() {
        let (found, params) = run(
            &FIX,
            &[
                ("SCRIPT_FILENAME", "proxy:fcgi://h:9000/r/a.php/x?q=1"),
                ("SCRIPT_NAME", "/a.php/x"),
            ],
        );
        assert_eq!(found, script(Some("/r/a.php"), Some("/a.php")));
        assert_eq!(shown(&params, "PATH_INFO").as_deref(), Some("/x"));
        assert_eq!(shown(&params, "PATH_TRANSLATED").as_deref(), Some("/r/x"));
        assert_eq!(shown(&params, "SCRIPT_NAME").as_deref(), Some("/a.php"));
        assert_eq!(shown(&params, "ORIG_SCRIPT_NAME").as_deref(), Some("/a.php/x"));
    }

    #[test]
    fn a_slash_at_the_end() {
        let (found, params) = run(
            &FIX,
            &[("SCRIPT_FILENAME", "/r/a.php/"), ("SCRIPT_NAME", "/a.php/")],
        );
        assert_eq!(found, script(Some("/r/a.php"), Some("/a.php/")));
        assert_eq!(shown(&params, "PATH_INFO"), None);
    }

    #[test]
    fn no_such_script() {
        let (found, params) = run(
            &FIX,
            &[("SCRIPT_FILENAME", "/r/nope.php"), ("SCRIPT_NAME", "/nope.php")],
        );
        assert_eq!(found.path, None);
        assert_eq!(shown(&params, "SCRIPT_FILENAME"), None);
        assert_eq!(
            shown(&params, "ORIG_SCRIPT_FILENAME").as_deref(),
            Some("/r/nope.php")
        );
        assert_eq!(run(&FIX, &[("SCRIPT_NAME", "/x")]).0, Script::default());
        assert_eq!(
            run(&PathSettings::default(), &[("SCRIPT_FILENAME", "/r/../x/a.php")])
                .0
                .path,
            None
        );
    }

    #[test]
    fn without_fix_pathinfo_everything_stays_as_sent() {
        let (found, params) = run(
            &PathSettings::default(),
            &[
                ("SCRIPT_FILENAME", "/r/g.php"),
                ("SCRIPT_NAME", "/g.php"),
                ("PATH_INFO", "/pi"),
            ],
        );
        assert_eq!(found, script(Some("/r/g.php"), Some("/pi")));
        assert_eq!(shown(&params, "SCRIPT_FILENAME").as_deref(), Some("/r/g.php"));
    }

    #[test]
    fn apaches_action_directive() {
        let (found, params) = run(
            &FIX,
            &[
                ("SCRIPT_FILENAME", "/r/b.php"),
                ("SCRIPT_NAME", "/b.php"),
                ("PATH_TRANSLATED", "/r/a.php"),
                ("PATH_INFO", "/a.php"),
                ("REDIRECT_URL", "/a.php"),
            ],
        );
        assert_eq!(found, script(Some("/r/a.php"), Some("/a.php")));
        assert_eq!(shown(&params, "SCRIPT_NAME").as_deref(), Some("/a.php"));
        assert_eq!(shown(&params, "PATH_INFO"), None);
        assert_eq!(shown(&params, "ORIG_PATH_INFO").as_deref(), Some("/a.php"));
    }

    #[test]
    fn iis_repeats_the_script_name() {
        let (_, params) = run(
            &PathSettings::default(),
            &[
                ("SERVER_SOFTWARE", "Microsoft-IIS/10"),
                ("SCRIPT_FILENAME", "/r/a.php"),
                ("SCRIPT_NAME", "/a.php"),
                ("PATH_INFO", "/a.php/x"),
            ],
        );
        assert_eq!(shown(&params, "PATH_INFO").as_deref(), Some("/x"));
        assert_eq!(shown(&params, "ORIG_PATH_INFO").as_deref(), Some("/a.php/x"));
    }

    #[test]
    fn extensions_are_plain_suffixes() {
        let php = [".php".to_owned()];
        assert!(is_allowed(b"/r/a.php", &php));
        assert!(!is_allowed(b"/r/a.txt", &php));
        assert!(!is_allowed(b".php", &php));
        assert!(is_allowed(b"/r/a.txt", &[]));
    }
}
