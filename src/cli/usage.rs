//! What `-h` prints when called as php-fpm.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::Path;

/// Flags and what they do. The first line is php-fpm's own.
const FLAGS: &[(&str, &str)] = &[
    ("-c <path>|<file>", "Read this php.ini, or the one in this folder"),
    ("-n", "Read no php.ini"),
    ("-d foo[=bar]", "Set the INI entry foo to bar, or to 1"),
    ("-e", "Compile with information for debuggers and profilers"),
    ("-h", "Print this"),
    ("-i", "Print phpinfo()"),
    ("-m", "Print the names of the modules"),
    ("-v", "Print the versions"),
    ("-p, --prefix <dir>", "Where relative paths start (default: /usr)"),
    ("-g, --pid <file>", "Pid file, where the configuration names none"),
    ("-y, --fpm-config <file>", "The configuration"),
    (
        "--config <file>",
        "glasspool.toml (default: the one beside the configuration)",
    ),
    (
        "-t, --test",
        "Test the configuration and exit; twice, also print it",
    ),
    (
        "-D, --daemonize",
        "Go into the background, whatever the configuration says",
    ),
    (
        "-F, --nodaemonize",
        "Stay in the foreground, whatever the configuration says",
    ),
    (
        "-O, --force-stderr",
        "In the foreground, log to standard error even if it is no terminal",
    ),
    ("-R, --allow-to-run-as-root", "Let pools run as root"),
];

/// The whole text. The name is that of the program's file if it was called by a path.
pub(super) fn text(argv0: &OsStr) -> String {
    let called_by_path = argv0.as_encoded_bytes().contains(&b'/');
    let name = Path::new(argv0).file_name().filter(|_| called_by_path);
    let name = name.unwrap_or(OsStr::new("php")).to_string_lossy();
    let mut text = format!(
        "Usage: {name} [-n] [-e] [-h] [-i] [-m] [-v] [-t] [-p <prefix>] [-g <pid>] [-c <file>] [-d foo[=bar]] [-y <file>] [-D] [-F [-O]]\n"
    );
    for (flag, what) in FLAGS {
        writeln!(text, "  {flag:<27}{what}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_programs_only_when_called_by_a_path() {
        for (argv0, name) in [
            ("/usr/sbin/php-fpm8.2", "php-fpm8.2"),
            ("./php-fpm", "php-fpm"),
            ("php-fpm8.2", "php"),
            ("", "php"),
        ] {
            let text = text(OsStr::new(argv0));
            assert!(text.starts_with(&format!("Usage: {name} [-n] ")), "{text}");
        }
    }
}
