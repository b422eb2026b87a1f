//! A pool's INI lines: which of them count, in which order, and which are paths.

use std::collections::BTreeSet;
use std::path::Path;

use super::directives::PoolLines;
use super::effective::PhpValue;

/// INI names whose relative values php-fpm puts under the prefix.
const INI_PATHS: [&str; 15] = [
    "error_log",
    "extension_dir",
    "mime_magic.magicfile",
    "sendmail_path",
    "session.cookie_path",
    "session_pgsql.sem_file_name",
    "soap.wsdl_cache_dir",
    "uploadprogress.file.filename_template",
    "xdebug.output_dir",
    "xdebug.profiler_output_dir",
    "xdebug.trace_output_dir",
    "xmms.path",
    "axis2.client_home",
    "blenc.key_file",
    "coin_acceptor.device",
];

/// INI names that add up instead of replacing each other, so that none of their lines may be dropped.
const INI_CUMULATIVE: [&str; 3] = ["extension", "disable_functions", "disable_classes"];

/// Puts relative paths among the values under `prefix`. Not for a chrooted pool: its paths are its own.
pub(super) fn expand_paths(lines: &mut PoolLines, prefix: &Path) {
    for (name, value) in &mut lines.php_values {
        expand(name, value, prefix);
    }
    for (name, value) in &mut lines.php_admin_values {
        // php-fpm exempts the admin form only; the other becomes a file called syslog there and here.
        if !(name.eq_ignore_ascii_case("error_log") && value.eq_ignore_ascii_case("syslog")) {
            expand(name, value, prefix);
        }
    }
}

fn expand(name: &str, value: &mut String, prefix: &Path) {
    let is_path = INI_PATHS.iter().any(|path| path.eq_ignore_ascii_case(name));
    if is_path && !value.is_empty() && !value.starts_with('/') {
        *value = format!("{}/{value}", prefix.to_string_lossy().trim_end_matches('/'));
    }
}

/// The values in the order to apply them, the scripts' own before the administrator's. php-fpm keeps each list
/// reversed, so the first line of a name is applied last and wins.
pub(super) fn in_order(lines: &PoolLines) -> Vec<PhpValue> {
    let mut values = first_lines(&lines.php_values, false);
    values.extend(first_lines(&lines.php_admin_values, true));
    values
}

fn first_lines(lines: &[(String, String)], admin: bool) -> Vec<PhpValue> {
    let mut seen = BTreeSet::new();
    let mut values: Vec<PhpValue> = lines
        .iter()
        .filter(|(name, _)| seen.insert(name.as_str()) || INI_CUMULATIVE.contains(&name.as_str()))
        .map(|(name, value)| PhpValue {
            name: name.clone(),
            value: value.clone(),
            admin,
        })
        .collect();
    values.reverse();
    values
}
