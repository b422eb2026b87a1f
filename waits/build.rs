//! Compiles the kernel programs with clang, and makes Rust constants of the numbers in
//! `bpf/types.h`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Programs to try where `CLANG` names none, the usual one first.
const CLANGS: [&str; 9] = [
    "clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19", "clang-20", "clang-21",
];
/// The first that writes the relocations for bit fields and `-mcpu=v3` as needed here.
const OLDEST_CLANG: u32 = 14;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bpf");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("numbers.rs"),
        numbers(&fs::read_to_string("bpf/types.h")?)?,
    )?;
    if env::var_os("CARGO_FEATURE_EBPF").is_some() {
        compile(&out.join("waits.bpf.o"))?;
    }
    Ok(())
}

/// `#define GP_NAME number` becomes `pub const NAME: u32 = number;`.
fn numbers(header: &str) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for line in header.lines() {
        let Some(definition) = line.strip_prefix("#define GP_") else {
            continue;
        };
        let mut words = definition.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if name.contains('(') {
            continue;
        }
        let value: u32 = value.parse().map_err(|e| format!("bpf/types.h: {line}: {e}"))?;
        writeln!(text, "pub(crate) const {name}: u32 = {value};")?;
    }
    Ok(text)
}

fn compile(object: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=CLANG");
    let machine = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => {
            return Err(format!(
                "the kernel programs know x86_64 and aarch64, not {other} (build with --no-default-features, without the feature ebpf)"
            )
            .into());
        }
    };
    let clang = find_clang()?;
    let done = Command::new(&clang)
        // Only types are taken from the debug information; they are what CO-RE needs.
        .args([
            "-g", "-O2", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3",
        ])
        .arg(format!("-D__TARGET_ARCH_{machine}"))
        // Reproducible, and nothing of the builder's directories in the object.
        .arg("-fdebug-compilation-dir=.")
        .args(["-c", "bpf/waits.bpf.c", "-o"])
        .arg(object)
        .status()?;
    if !done.success() {
        return Err(format!("{clang} could not compile bpf/waits.bpf.c ({done})").into());
    }
    Ok(())
}

fn find_clang() -> Result<String, Box<dyn Error>> {
    let named = env::var("CLANG").ok();
    let names = named.as_deref().map_or(CLANGS.to_vec(), |name| vec![name]);
    let mut seen = String::new();
    for name in names {
        match version(name) {
            Some(version) if version >= OLDEST_CLANG => return Ok(name.to_owned()),
            Some(version) => write!(seen, "; {name} is version {version}")?,
            None => {}
        }
    }
    Err(format!(
        "the kernel programs need clang {OLDEST_CLANG} or later{seen}. Install Debian's package `clang` \
         (apt-get install clang), name one with CLANG=, or build without the feature `ebpf` \
         (--no-default-features)"
    )
    .into())
}

/// `Debian clang version 14.0.6`: 14.
fn version(clang: &str) -> Option<u32> {
    let said = Command::new(clang).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let (_, after) = said.split_once("version ")?;
    after.split('.').next()?.trim().parse().ok()
}
