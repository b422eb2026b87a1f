//! A pool's INI lines: which of them count, in which order, and which are paths.

use std::collections::BTreeSet;
use std::path::Path;

use super::directives::RawPool;
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

/// The values in the order to apply them, the scripts' own before the administrator's. php-fpm keeps each list
/// reversed, so the first line of a name is applied last and wins. Relative paths start at `prefix`; a chrooted
/// pool has none, its paths are its own.
pub(super) fn in_order(raw: &RawPool, prefix: Option<&Path>) -> Vec<PhpValue> {
    let mut values = first_lines(&raw.php_values, false, prefix);
    values.extend(first_lines(&raw.php_admin_values, true, prefix));
    values
}

fn first_lines(lines: &[(String, String)], admin: bool, prefix: Option<&Path>) -> Vec<PhpValue> {
    let mut seen = BTreeSet::new();
    let mut values = Vec::new();
    for (name, value) in lines {
        if seen.insert(name.as_str()) || INI_CUMULATIVE.contains(&name.as_str()) {
            let value = expanded(name, value, admin, prefix);
            values.push(PhpValue {
                name: name.clone(),
                value,
                admin,
            });
        }
    }
    values.reverse();
    values
}

fn expanded(name: &str, value: &str, admin: bool, prefix: Option<&Path>) -> String {
    let is_path = INI_PATHS.iter().any(|path| path.eq_ignore_ascii_case(name));
    // php-fpm exempts the admin form only; the other becomes a file called syslog there and here.
    let is_syslog = admin && name.eq_ignore_ascii_case("error_log") && value == "syslog";
    match prefix {
        Some(prefix) if is_path && !is_syslog && !value.is_empty() && !value.starts_with('/') => {
            format!("{}/{value}", prefix.to_string_lossy().trim_end_matches('/'))
        }
        _ => value.to_owned(),
    }
}
