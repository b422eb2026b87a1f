//! Rules of ARCHITECTURE.md that a machine can check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::migrating;

/// Files that may say `unsafe`: the boundary modules.
const BOUNDARIES: &[&str] = &[
    "abi/src/mapping.rs",
    "waits/src/kernel.rs",
    "sapi/src/ffi.rs",
    "sapi/src/ffi/leaves.rs",
];

/// Which of our crates a crate may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("fastcgi", &[]),
    ("probes", &["glasspool-abi", "glasspool-fastcgi"]),
    ("waits", &["glasspool-abi"]),
    ("otel", &["glasspool-abi", "glasspool-fastcgi"]),
    ("sapi", &["glasspool-abi", "glasspool-fastcgi"]),
];

/// Checks all rules and names every place that breaks one.
pub(crate) fn check() -> Result<()> {
    let mut broken = Vec::new();
    for folder in [
        "src",
        "abi/src",
        "fastcgi/src",
        "probes/src",
        "waits/src",
        "otel/src",
        "sapi/src",
        "benches/src",
        "xtask/src",
    ] {
        for file in rust_files(Path::new(folder))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            check_file(&file, &text, &mut broken);
        }
    }
    for (room, allowed) in ARROWS {
        let manifest = format!("{room}/Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {manifest}"))?;
        let dependencies = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines().filter(|l| l.starts_with("glasspool-")) {
            if !allowed.iter().any(|a| line.starts_with(a)) {
                broken.push(format!(
                    "{manifest}: an arrow that ARCHITECTURE.md does not have: {line}"
                ));
            }
        }
    }
    migrating::check(&mut broken)?;
    if !broken.is_empty() {
        bail!("tidy:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

fn check_file(file: &Path, text: &str, broken: &mut Vec<String>) {
    let name = file.to_string_lossy();
    let ours = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (number, line) in (1..).zip(ours.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        let says_unsafe = code.contains("unsafe ") && !code.contains("unsafe_") && !code.contains('"');
        if says_unsafe && !BOUNDARIES.contains(&&*name) {
            broken.push(format!("{name}:{number}: unsafe outside the boundary modules"));
        }
        let todo = ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(word));
        if todo && !line.contains('#') && !name.starts_with("xtask/") {
            broken.push(format!(
                "{name}:{number}: a note of something to do without an issue number"
            ));
        }
    }
    // The supervisor and the observer speak over a socket only.
    if name.starts_with("src/supervisor/") && ours.contains("crate::observer") {
        broken.push(format!("{name}: the supervisor names the observer"));
    }
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(name: &str, text: &str) -> usize {
        let mut out = Vec::new();
        check_file(Path::new(name), text, &mut out);
        out.len()
    }

    #[test]
    fn each_rule_can_be_broken() {
        assert_eq!(broken("src/a.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(broken("abi/src/mapping.rs", "fn f() { unsafe { g() } }"), 0);
        assert_eq!(broken("src/a.rs", "// TODO later"), 1);
        assert_eq!(broken("src/a.rs", "// TODO(#12) later"), 0);
        assert_eq!(broken("src/supervisor/a.rs", "use crate::observer;"), 1);
        assert_eq!(broken("src/a.rs", "#![forbid(unsafe_code)]\nfn f() {}"), 0);
    }
}
