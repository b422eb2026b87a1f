//! Compiles the C shim against the PHP that `PHP_CONFIG` names (default
//! `php-config`) and tells the crate which PHP that is.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PHP_CONFIG");
    println!("cargo::rerun-if-changed=shim");
    let php_config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".to_owned());
    let ask = |option: &str| -> String {
        let output = Command::new(&php_config).arg(option).output().unwrap_or_else(|e| {
            panic!("cannot run {php_config}: {e} (install PHP's headers, on Debian php8.2-dev, or set PHP_CONFIG)")
        });
        assert!(
            output.status.success(),
            "{php_config} {option}: {}",
            output.status
        );
        String::from_utf8(output.stdout)
            .expect("php-config prints text")
            .trim()
            .to_owned()
    };
    let version: u32 = ask("--vernum")
        .parse()
        .expect("php-config --vernum prints a number");
    assert!(
        (80200..80300).contains(&version),
        "{php_config} is PHP {}; the engine object is tested with PHP 8.2 (set PHP_CONFIG to one, for example php-config8.2)",
        ask("--version"),
    );
    let mut build = cc::Build::new();
    for flag in ask("--includes").split_whitespace() {
        build.flag(flag);
    }
    for file in [
        "layout",
        "start",
        "sapi",
        "functions",
        "about",
        "opcache",
        "pages",
        "request",
        "settings",
        "fork",
        "crash",
    ] {
        build.file(format!("shim/{file}.c"));
    }
    build
        .flag("-std=gnu11")
        .flag("-fvisibility=hidden")
        .flag("-Wno-unused-parameter")
        .flag("-Wno-sign-compare")
        .define("NDEBUG", None)
        .warnings(true)
        .compile("glasspool_shim");
}
