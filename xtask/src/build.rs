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

/// Installs below PREFIX (`/usr/local`), inside DESTDIR if that is set.
pub(crate) fn install() -> Result<()> {
    let folder = Path::new("target/release");
    let prefix = std::env::var("PREFIX").unwrap_or_else(|_| "/usr/local".to_owned());
    let root = std::env::var("DESTDIR").unwrap_or_default();
    let object = object_name()?;
    for (from, to, mode) in [
        ("glasspool", format!("{root}{prefix}/bin/glasspool"), "755"),
        (&*object, format!("{root}{prefix}/lib/glasspool/{object}"), "644"),
    ] {
        run(Command::new("install")
            .args(["-D", "-m", mode])
            .arg(folder.join(from))
            .arg(to))?;
    }
    Ok(())
}
