//! `xtask build`: the program and its engine object, side by side so that it runs in
//! place.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cargo, output, run};

/// Builds in this profile and gives the folder of the results.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    run(cargo(&["build", "--package", "glasspool", "--package", "glasspool-sapi"]).args(profile))?;
    let folder = Path::new("target").join(if release { "release" } else { "debug" });
    let object = folder.join(object_name()?);
    // A running engine may have the old file mapped: replace it, do not write into it.
    let fresh = folder.join("libglasspool_engine.so.new");
    std::fs::copy(folder.join("libglasspool_engine.so"), &fresh)
        .and_then(|_| std::fs::rename(&fresh, &object))
        .with_context(|| format!("cannot name the engine object {}", object.display()))?;
    Ok(folder)
}

/// `libglasspool_engine-<API number>-nts.so` of the PHP that PHP_CONFIG names.
pub(crate) fn object_name() -> Result<String> {
    let php_config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".to_owned());
    let api = output(Command::new(&php_config).arg("--phpapi"))?;
    Ok(format!("libglasspool_engine-{}-nts.so", api.trim()))
}

/// Installs below PREFIX (`/usr/local`), inside DESTDIR if that is set. `PHP_FPM_LINK`
/// set to 1, or to a name, makes a link by which the program behaves as php-fpm.
pub(crate) fn install() -> Result<()> {
    let folder = Path::new("target/release");
    let prefix = std::env::var("PREFIX").unwrap_or_else(|_| "/usr/local".to_owned());
    let root = std::env::var("DESTDIR").unwrap_or_default();
    // As Debian and the GNU conventions have it: only /usr has its configuration outside.
    let sysconf = match prefix.trim_end_matches('/') {
        "/usr" => format!("{root}/etc"),
        other => format!("{root}{other}/etc"),
    };
    let below = |path: &str| format!("{root}{prefix}/{path}");
    let object = object_name()?;
    let program = folder.join("glasspool");
    put(&program, &below("bin/glasspool"), "755")?;
    put(
        &folder.join(&object),
        &below(&format!("lib/glasspool/{object}")),
        "644",
    )?;

    let binary = format!("{prefix}/bin/glasspool");
    for (from, to, mode) in [
        (
            "systemd/glasspool@.service",
            below("lib/systemd/system/glasspool@.service"),
            "644",
        ),
        ("sysv/glasspool", format!("{sysconf}/init.d/glasspool"), "755"),
        (
            "logrotate/glasspool",
            format!("{sysconf}/logrotate.d/glasspool"),
            "644",
        ),
    ] {
        let from = Path::new("packaging").join(from);
        let text =
            std::fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        // These name the program by its path as a distribution installs it.
        put_text(&text.replace("/usr/bin/glasspool", &binary), &to, mode)?;
    }
    for (shell, to) in [
        ("bash", "share/bash-completion/completions/glasspool"),
        ("zsh", "share/zsh/site-functions/_glasspool"),
        ("fish", "share/fish/vendor_completions.d/glasspool.fish"),
    ] {
        let script = output(Command::new(&program).args(["completion", shell]))?;
        put_text(&script, &below(to), "644")?;
    }
    let name = match std::env::var("PHP_FPM_LINK").unwrap_or_default().as_str() {
        "" | "0" => return Ok(()),
        "1" => "php-fpm".to_owned(),
        name => name.to_owned(),
    };
    let link = below(&format!("bin/{name}"));
    run(Command::new("ln").args(["-sfn", "glasspool", &link]))
}

fn put(from: &Path, to: &str, mode: &str) -> Result<()> {
    run(Command::new("install").args(["-D", "-m", mode]).arg(from).arg(to))
}

fn put_text(text: &str, to: &str, mode: &str) -> Result<()> {
    let file = Path::new("target").join("to-install");
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    put(&file, to, mode)
}
