//! Which PHP a file is, by two strings that every build has in its constants: the
//! header that it sends (`X-Powered-By: PHP/8.2.36`, main/main.c) and the build id that
//! extensions must match (`API20220829,NTS`, Zend/zend_build.h). Neither is believed
//! without the other.

use crate::php::layouts;

/// What a file says of the PHP in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// For example `8.2.36`, or `8.6.0rc3`.
    pub(super) text: String,
    /// Major and minor number.
    pub(super) minor: (u32, u32),
    /// `ZEND_MODULE_API_NO`.
    pub(super) api: u32,
    /// Whether it was built for debugging, with other offsets.
    pub(super) debug: bool,
}

/// Why it is none that can be read: what it is, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) php: String,
    pub(super) why: String,
}

/// Longest version; `8.2.0-dev-with-a-suffix` is longer than most.
const MAX_VERSION: usize = 64;
/// Longest rest of a build id; distributions may append to it.
const MAX_BUILD: usize = 64;

/// The version of the PHP whose constants these are.
pub(super) fn find(constants: &[u8]) -> Result<Version, Refused> {
    let text = strings_after(constants, b"X-Powered-By: PHP/", MAX_VERSION)
        .find(|text| text.starts_with(|first: char| first.is_ascii_digit()));
    let builds: Vec<Build> = strings_after(constants, b"API", MAX_BUILD)
        .filter_map(|rest| Build::parse(&rest))
        .collect();
    let name = |text: &str, build: &str| format!("PHP {text} ({build})");
    let (Some(text), Some(build)) = (&text, builds.first()) else {
        return Err(Refused {
            php: name(
                text.as_deref().unwrap_or("of unknown version"),
                builds.first().map_or("no build id", |build| &build.text),
            ),
            why: "its file lacks the version, the build id or both, so that neither can be believed; \
                  native frames do not need them"
                .to_owned(),
        });
    };
    let php = name(text, &build.text);
    let refuse = |why: String| Refused {
        php: php.clone(),
        why,
    };
    if builds.iter().any(|other| other.api != build.api) {
        return Err(refuse(
            "its file has the build ids of several versions".to_owned(),
        ));
    }
    if !build.nts {
        return Err(refuse(
            "a thread-safe (ZTS) build keeps its globals per thread; only NTS builds can be read".to_owned(),
        ));
    }
    let minor = parse_minor(text).ok_or_else(|| refuse("that is no version number".to_owned()))?;
    match layouts::api_of(minor) {
        Some(api) if api != build.api => Err(refuse(format!(
            "version and build id do not agree (PHP {}.{} has API{api})",
            minor.0, minor.1
        ))),
        _ => Ok(Version {
            text: text.clone(),
            minor,
            api: build.api,
            debug: build.debug,
        }),
    }
}

impl Version {
    /// `PHP 8.2.36 (API20220829,NTS)`.
    pub(super) fn name(&self) -> String {
        let debug = if self.debug { ",debug" } else { "" };
        format!("PHP {} (API{},NTS{debug})", self.text, self.api)
    }
}

/// A build id behind its `API`.
#[derive(Debug)]
struct Build {
    text: String,
    api: u32,
    nts: bool,
    debug: bool,
}

impl Build {
    /// Zend extensions have an id of their own, whose number is one digit longer.
    fn parse(rest: &str) -> Option<Build> {
        let mut parts = rest.split(',');
        let number = parts.next().filter(|number| number.len() == 8)?;
        let nts = match parts.next()? {
            "NTS" => true,
            "TS" => false,
            _ => return None,
        };
        Some(Build {
            text: format!("API{rest}"),
            api: number.parse().ok()?,
            nts,
            debug: parts.any(|part| part == "debug"),
        })
    }
}

fn parse_minor(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What follows each `prefix`, up to the end of its C string; printable strings of at
/// most `max` bytes only.
fn strings_after<'a>(bytes: &'a [u8], prefix: &'a [u8], max: usize) -> impl Iterator<Item = String> + 'a {
    let first = prefix[0];
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..)?;
            at += rest.iter().position(|&byte| byte == first)? + 1;
            let Some(found) = bytes[at - 1..].strip_prefix(prefix) else {
                continue;
            };
            let head = &found[..found.len().min(max)];
            let Some(end) = head.iter().position(|&byte| byte == 0) else {
                continue;
            };
            if let Ok(text) = std::str::from_utf8(&head[..end])
                && text.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Some(text.to_owned());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants(strings: &[&str]) -> Vec<u8> {
        let mut bytes = b"XX-Powered\0API\0APIx,NTS\0".to_vec();
        for string in strings {
            bytes.extend(string.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn version_and_build_id_must_both_be_there_and_agree() {
        let both = constants(&["API420220829,NTS", "API20220829,NTS", "X-Powered-By: PHP/8.2.36"]);
        let expected = Version {
            text: "8.2.36".to_owned(),
            minor: (8, 2),
            api: 20_220_829,
            debug: false,
        };
        assert_eq!(find(&both), Ok(expected));
        // What the tables do not have may be in debug information.
        for (strings, name) in [
            (
                ["X-Powered-By: PHP/8.2.36", "API20220829,NTS,debug"],
                "PHP 8.2.36 (API20220829,NTS,debug)",
            ),
            (
                ["X-Powered-By: PHP/8.7.0", "API20271001,NTS"],
                "PHP 8.7.0 (API20271001,NTS)",
            ),
        ] {
            assert_eq!(find(&constants(&strings)).unwrap().name(), name);
        }
        for (strings, php, why) in [
            (
                &["X-Powered-By: PHP/8.2.36"][..],
                "PHP 8.2.36 (no build id)",
                "lacks",
            ),
            (
                &["API20220829,NTS"],
                "PHP of unknown version (API20220829,NTS)",
                "lacks",
            ),
            (
                &["X-Powered-By: PHP/8.4.1", "API20220829,NTS"],
                "PHP 8.4.1 (API20220829,NTS)",
                "do not agree (PHP 8.4 has API20240924)",
            ),
            (
                &["X-Powered-By: PHP/8.2.36", "API20220829,TS"],
                "PHP 8.2.36 (API20220829,TS)",
                "thread-safe",
            ),
            (
                &["X-Powered-By: PHP/8.2.36", "API20220829,NTS", "API20240924,NTS"],
                "PHP 8.2.36 (API20220829,NTS)",
                "several versions",
            ),
            (
                &["X-Powered-By: PHP/9", "API20271001,NTS"],
                "PHP 9 (API20271001,NTS)",
                "no version number",
            ),
        ] {
            let refused = find(&constants(strings)).unwrap_err();
            assert_eq!(refused.php, php);
            assert!(refused.why.contains(why), "{}", refused.why);
        }
    }

    #[test]
    fn strings_without_an_end_are_no_strings() {
        assert!(find(b"X-Powered-By: PHP/8.2.36 API20220829,NTS").is_err());
        let long = constants(&[
            &format!("X-Powered-By: PHP/8.2.{}", "1".repeat(100)),
            "API20220829,NTS",
        ]);
        assert!(find(&long).is_err());
    }
}
