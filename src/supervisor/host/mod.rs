//! Which PHP executable hosts the engine, and which engine object goes into it.
//!
//! Nothing is run to find out. Start with [`choose`].

mod inspect;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use inspect::inspect;
pub use inspect::{BuildId, InspectError};

/// Kinds of PHP executables, best first: php-fpm's own reads the configuration folder
/// that php-fpm's users expect.
const KINDS: [&str; 3] = ["php-fpm", "php-cgi", "php"];
/// Searched after PATH, which for an ordinary user has no sbin.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// Start of an engine object's file name; API number and thread safety follow.
const OBJECT_PREFIX: &str = "libglasspool_engine-";

/// A PHP executable and the engine object built for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The executable.
    pub binary: PathBuf,
    /// Its build.
    pub build: BuildId,
    /// The shared object to load in front of it.
    pub object: PathBuf,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configured executable cannot host an engine.
    #[error("{} cannot host the engine: {source} (name a stock php-fpm, php-cgi or php in [php] binary)", binary.display())]
    Unfit {
        /// The executable.
        binary: PathBuf,
        /// What is wrong with it.
        source: InspectError,
    },
    /// There is no engine object for the configured executable.
    #[error("{} is {build}; engine objects here are: {objects}; build one with `make build PHP_CONFIG=…`", binary.display())]
    NoObject {
        /// The executable.
        binary: PathBuf,
        /// Its build.
        build: BuildId,
        /// What there is, as text.
        objects: String,
    },
    /// Nothing that was found fits.
    #[error(
        "no PHP executable here can host the engine: {tried}; engine objects here are: {objects}; install PHP, name one in [php] binary, or build an object with `make build PHP_CONFIG=…`"
    )]
    NoneFits {
        /// What was tried and why it does not fit.
        tried: String,
        /// What there is, as text.
        objects: String,
    },
    /// The dynamic linker splits LD_PRELOAD at these characters (ld.so(8)).
    #[error("the engine object {} has a space or a colon in its path, which the dynamic linker cannot preload (install Glasspool elsewhere)", object.display())]
    UnloadablePath {
        /// The object.
        object: PathBuf,
    },
    /// `/proc` is not there, say.
    #[error("cannot find out where this program is, to find its engine objects: {0}")]
    OwnPath(#[source] io::Error),
}

/// Chooses the executable: `wanted` if given, else the first that fits of those found.
pub fn choose(wanted: Option<&Path>) -> Result<Host, HostError> {
    let own = std::env::current_exe().map_err(HostError::OwnPath)?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let objects = find_objects(&[folder.to_path_buf(), folder.join("../lib/glasspool")]);
    match wanted {
        Some(binary) => fit(binary, &objects),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
            first_fit(candidates(folders), &objects)
        }
    }
}

fn first_fit(candidates: Vec<PathBuf>, objects: &[Engine]) -> Result<Host, HostError> {
    let mut tried = String::new();
    for binary in &candidates {
        match fit(binary, objects) {
            Ok(host) => return Ok(host),
            Err(why) => {
                let reason = match &why {
                    HostError::Unfit { source, .. } => source.to_string(),
                    HostError::NoObject { build, .. } => format!("it is {build}"),
                    HostError::UnloadablePath { .. } | HostError::OwnPath(_) | HostError::NoneFits { .. } => {
                        return Err(why);
                    }
                };
                let separator = if tried.is_empty() { "" } else { ", " };
                write!(tried, "{separator}{}: {reason}", binary.display()).expect("a string takes all");
            }
        }
    }
    if tried.is_empty() {
        tried.push_str("there is no php-fpm, php-cgi or php in PATH or /usr/sbin");
    }
    Err(HostError::NoneFits {
        tried,
        objects: list(objects),
    })
}

fn fit(binary: &Path, objects: &[Engine]) -> Result<Host, HostError> {
    let build = inspect(binary).map_err(|source| HostError::Unfit {
        binary: binary.to_path_buf(),
        source,
    })?;
    let Some(engine) = objects.iter().find(|engine| engine.build == build) else {
        let (binary, objects) = (binary.to_path_buf(), list(objects));
        return Err(HostError::NoObject {
            binary,
            build,
            objects,
        });
    };
    let object = engine.object.clone();
    if object
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .any(|byte| matches!(byte, b' ' | b':'))
    {
        return Err(HostError::UnloadablePath { object });
    }
    Ok(Host {
        binary: binary.to_path_buf(),
        build,
        object,
    })
}

/// An engine object and what it was built for, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Engine {
    build: BuildId,
    object: PathBuf,
}

fn find_objects(folders: &[PathBuf]) -> Vec<Engine> {
    let mut found: Vec<Engine> = Vec::new();
    for folder in folders {
        for path in list_folder(folder) {
            let build = path.file_name().and_then(OsStr::to_str).and_then(build_of_object);
            match build {
                // The one beside the program wins.
                Some(build) if found.iter().all(|engine| engine.build != build) => {
                    found.push(Engine { build, object: path });
                }
                Some(_) | None => {}
            }
        }
    }
    found.sort_by_key(|engine| engine.build);
    found
}

/// `libglasspool_engine-20220829-nts.so` is for `API20220829,NTS`.
fn build_of_object(name: &str) -> Option<BuildId> {
    let (api, safety) = name
        .strip_prefix(OBJECT_PREFIX)?
        .strip_suffix(".so")?
        .split_once('-')?;
    let zts = match safety {
        "nts" => false,
        "zts" => true,
        _ => return None,
    };
    let digits = api.len() == 8 && api.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| {
        Some(BuildId {
            api: api.parse().ok()?,
            zts,
            debug: false,
        })
    })?
}

fn list(objects: &[Engine]) -> String {
    if objects.is_empty() {
        return "none (they are looked for beside the program and in ../lib/glasspool)".to_owned();
    }
    objects
        .iter()
        .map(|engine| engine.build.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every PHP executable in the folders: by kind, the plain name before those with a
/// version behind it, and of those the newest first.
fn candidates(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders.filter(|folder| folder.is_absolute()) {
        let mut listed = list_folder(&folder);
        // Only few of a folder's thousands of files are worth comparing with each other.
        listed.retain(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| KINDS.iter().any(|kind| name.starts_with(kind)))
        });
        listed.sort();
        for path in listed {
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    let mut ordered = Vec::new();
    for kind in KINDS {
        let mut of_kind: Vec<(Option<(u32, u32)>, &PathBuf)> = files
            .iter()
            .filter_map(|path| {
                let rest = path.file_name()?.to_str()?.strip_prefix(kind)?;
                if rest.is_empty() {
                    Some((None, path))
                } else {
                    Some((Some(version(rest)?), path))
                }
            })
            .collect();
        // A stable sort: within one version the order of the folders stays.
        of_kind.sort_by_key(|(version, _)| (version.is_some(), std::cmp::Reverse(*version)));
        ordered.extend(of_kind.into_iter().map(|(_, path)| path.clone()));
    }
    // The same file under a further name would only be refused twice.
    let mut seen = Vec::new();
    ordered.retain(|path| {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_new = !seen.contains(&real);
        seen.push(real);
        is_new
    });
    ordered
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn list_folder(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            std::fs::write(folder.join(name), "").expect("writes");
        }
    }

    #[test]
    fn candidates_are_ordered_by_kind_then_name_then_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bin, sbin) = (folder.path().join("bin"), folder.path().join("sbin"));
        std::fs::create_dir(&bin).expect("makes");
        std::fs::create_dir(&sbin).expect("makes");
        touch(
            &bin,
            &[
                "php",
                "php8.2",
                "php8.10",
                "php-cgi",
                "phpize",
                "php8.2.bak",
                "phar",
            ],
        );
        touch(&sbin, &["php-fpm8.2", "php-fpm8.4"]);
        std::os::unix::fs::symlink("php8.10", bin.join("php8.9")).expect("links");
        let found = candidates([bin.clone(), sbin, bin].into_iter());
        let names: Vec<_> = found
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        assert_eq!(
            names,
            ["php-fpm8.4", "php-fpm8.2", "php-cgi", "php", "php8.10", "php8.2"]
        );
    }

    #[test]
    fn objects_are_known_by_their_names() {
        let build = BuildId {
            api: 20_220_829,
            zts: false,
            debug: false,
        };
        assert_eq!(
            build_of_object("libglasspool_engine-20220829-nts.so"),
            Some(build)
        );
        for other in [
            "libglasspool_engine.so",
            "libglasspool_engine-2022-nts.so",
            "libglasspool_engine-20220829-x.so",
        ] {
            assert_eq!(build_of_object(other), None, "{other}");
        }
        let (beside, lib) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        touch(
            beside.path(),
            &["libglasspool_engine-20220829-nts.so", "libglasspool_engine.d"],
        );
        touch(
            lib.path(),
            &[
                "libglasspool_engine-20220829-nts.so",
                "libglasspool_engine-20240924-nts.so",
            ],
        );
        let found = find_objects(&[beside.path().to_path_buf(), lib.path().to_path_buf()]);
        assert_eq!(list(&found), "API20220829,NTS API20240924,NTS");
        assert!(found[0].object.starts_with(beside.path()));
    }

    #[test]
    fn what_does_not_fit_is_skipped_but_told() {
        let folder = tempfile::tempdir().expect("a folder");
        touch(folder.path(), &["php"]);
        let binary = folder.path().join("php");
        let error = first_fit(vec![binary.clone()], &[]).expect_err("no ELF");
        let text = error.to_string();
        assert!(
            text.contains(&format!("{}: it is no executable", binary.display())),
            "{text}"
        );
        assert!(text.contains("engine objects here are: none"), "{text}");
        assert!(matches!(fit(&binary, &[]), Err(HostError::Unfit { .. })));
    }
}
