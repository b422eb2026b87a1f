//! PHP's settings: the pool's, the request's, those of folders and hosts, and how the
//! engine itself was started.

use std::path::Path;

use glasspool_abi::control::{PhpSetting, PoolSpec};

use crate::harness::{Engine, Setup, params, pool, with};

fn value(name: &str, value: &str) -> PhpSetting {
    PhpSetting {
        name: name.to_owned(),
        value: value.to_owned(),
        admin: false,
    }
}

fn admin(name: &str, text: &str) -> PhpSetting {
    PhpSetting {
        admin: true,
        ..value(name, text)
    }
}

fn set(php_values: Vec<PhpSetting>) -> PoolSpec {
    PoolSpec { php_values, ..pool() }
}

/// A script that shows these settings. Opcache works out ini_get() of a locked setting
/// when it compiles, so the function is not named.
fn show(names: &[&str]) -> String {
    let parts: Vec<String> = names.iter().map(|n| format!("$get('{n}')")).collect();
    format!(
        "<?php $get = 'ini_get'; echo implode(' ', [{}]);",
        parts.join(", ")
    )
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes folders");
    std::fs::write(path, text).expect("writes");
}

#[test]
fn user_ini_files_on_the_way_to_the_script() {
    let mut engine = Engine::start(set(vec![value("precision", "5"), admin("memory_limit", "32M")]));
    let _worker = engine.spawn();
    let root = engine.folder.path().join("root");
    let names = [
        "precision",
        "serialize_precision",
        "arg_separator.output",
        "memory_limit",
    ];
    let script = root.join("a/b/x.php");
    write(&script, &show(&names));
    write(
        &root.join(".user.ini"),
        "precision=9\nserialize_precision=1\narg_separator.output=r\nmemory_limit=64M\n",
    );
    write(&root.join("a/.user.ini"), "serialize_precision=2\n");
    write(&root.join("a/b/.user.ini"), "arg_separator.output=b\n");
    write(&root.join("a/bc/y.php"), &show(&names));
    let body = |script: &Path, root: &str| {
        let request = params(script);
        let request = if root.is_empty() {
            request
                .into_iter()
                .filter(|(n, _)| n != "DOCUMENT_ROOT")
                .collect()
        } else {
            with(request, "DOCUMENT_ROOT", root)
        };
        engine.request(&request, b"").body()
    };
    let folder = |name: &str| engine.folder.path().join(name).display().to_string();
    assert_eq!(body(&script, &folder("root")), "9 2 b 32M");
    assert_eq!(body(&script, &folder("root/")), "9 2 b 32M");
    assert_eq!(body(&script, &folder("root/a")), "5 2 b 32M");
    assert_eq!(body(&root.join("a/bc/y.php"), &folder("root/a/b")), "5 -1 & 32M");
    assert_eq!(body(&script, "/elsewhere"), "5 -1 b 32M");
    assert_eq!(body(&script, ""), "5 -1 & 32M");
    // Remembered for user_ini.cache_ttl seconds, also that there is none.
    write(&root.join("a/.user.ini"), "serialize_precision=3\n");
    write(&root.join("a/bc/.user.ini"), "precision=1\n");
    assert_eq!(body(&script, &folder("root")), "9 2 b 32M");
    assert_eq!(body(&root.join("a/bc/y.php"), &folder("root")), "9 2 r 32M");
}

#[test]
fn user_ini_files_are_read_again_after_their_time() {
    let mut engine = Engine::start(set(vec![admin("user_ini.cache_ttl", "0")]));
    let _worker = engine.spawn();
    let script = engine.script("x.php", &show(&["precision"]));
    let ini = engine.folder.path().join(".user.ini");
    for precision in ["3", "4"] {
        write(&ini, &format!("precision={precision}\n"));
        assert_eq!(engine.get(&script).body(), precision);
    }
}

#[test]
fn sections_of_php_ini_for_hosts_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "precision=6\n[HOST=one.example]\nprecision=7\nmemory_limit=40M\n[PATH={}]\nserialize_precision=8\n",
        folder.path().display()
    );
    let ini = folder.path().join("php.ini");
    write(&ini, &text);
    // These come from the administrator too, and are nearer to the request.
    let mut setup = Setup::of(set(vec![admin("memory_limit", "32M")]));
    setup.start.ini = Some(ini.display().to_string());
    let mut engine = Engine::set_up(setup);
    let _worker = engine.spawn();
    let names = ["precision", "serialize_precision", "memory_limit"];
    let inside = folder.path().join("x.php");
    write(&inside, &show(&names));
    let outside = engine.script("y.php", &show(&names));
    let of_host = |script: &Path, host: &str| {
        let request = with(params(script), "SERVER_NAME", host);
        engine.request(&request, b"").body()
    };
    assert_eq!(of_host(&inside, "ONE.example"), "7 8 40M");
    assert_eq!(of_host(&inside, "two.example"), "6 8 32M");
    assert_eq!(of_host(&outside, "two.example"), "6 -1 32M");
}

#[test]
fn admin_values_are_locked() {
    let mut engine = Engine::start(set(vec![
        value("precision", "5"),
        admin("serialize_precision", "6"),
    ]));
    let _worker = engine.spawn();
    let script = engine.script(
        "locked.php",
        "<?php var_dump(ini_set('serialize_precision', '1')); echo ini_get('precision'), ini_get('serialize_precision');",
    );
    let request = with(params(&script), "PHP_VALUE", "precision=7\nserialize_precision=7");
    let response = engine.request(&request, b"");
    assert_eq!(response.body(), "bool(false)\n76");
    assert_eq!(
        String::from_utf8_lossy(&response.stderr),
        "Passing INI directive through FastCGI: unable to set 'serialize_precision'"
    );
    assert_eq!(engine.get(&script).body(), "bool(false)\n56");
}

#[test]
fn a_refused_value_leaves_what_was_there() {
    let mut engine = Engine::start(set(vec![
        admin("date.timezone", "Europe/Paris"),
        admin("date.timezone", "Nowhere/Land"),
        admin("mbstring.language", "no such language"),
        admin("memory_limit", "33M"),
    ]));
    let _worker = engine.spawn();
    let script = engine.script(
        "tz.php",
        &show(&["date.timezone", "mbstring.language", "memory_limit"]),
    );
    for _ in 0..50 {
        assert_eq!(engine.get(&script).body(), "Europe/Paris neutral 33M");
    }
    let log = engine.log();
    for name in ["date.timezone", "mbstring.language"] {
        assert!(
            log.contains(&format!("ERROR: Unable to set php_admin_value '{name}'\n")),
            "{log}"
        );
    }
    assert_eq!(log.matches("Unable to set").count(), 2, "{log}");
}

#[test]
fn what_is_disabled_for_the_pool() {
    let mut engine = Engine::start(set(vec![
        admin("disable_functions", "exec, system passthru"),
        admin("disable_classes", "SplStack,SplQueue"),
    ]));
    let _worker = engine.spawn();
    let script = engine.script(
        "disabled.php",
        "<?php foreach (['exec', 'system', 'passthru', 'popen'] as $f) echo function_exists($f) ? 'y' : 'n';
         echo method_exists('SplQueue', 'push') ? 'y' : 'n', method_exists('SplObjectStorage', 'attach') ? 'y' : 'n';",
    );
    for _ in 0..3 {
        assert_eq!(engine.get(&script).body(), "nnnyny");
    }
}

#[test]
fn functions_that_a_request_disables_stay_so() {
    let mut engine = Engine::start(pool());
    let _worker = engine.spawn();
    let script = engine.script(
        "d.php",
        "<?php [$exists, $get] = ['function_exists', 'ini_get']; // opcache works these out when it compiles
         echo $exists('exec') ? 'y' : 'n', $get('disable_functions');",
    );
    assert_eq!(engine.get(&script).body(), "y");
    let request = with(params(&script), "PHP_ADMIN_VALUE", "disable_functions=exec");
    for _ in 0..3 {
        assert_eq!(engine.request(&request, b"").body(), "nexec");
    }
    assert_eq!(engine.get(&script).body(), "n");
}

#[test]
fn doc_root_of_the_pool() {
    let root = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(set(vec![admin(
        "doc_root",
        &format!("{}/", root.path().display()),
    )]));
    let _worker = engine.spawn();
    let script = root.path().join("in.php");
    write(&script, "<?php echo 'OK';");
    let request = with(params(&script), "SCRIPT_NAME", "in.php");
    let request: Vec<_> = request
        .into_iter()
        .filter(|(n, _)| n != "DOCUMENT_ROOT")
        .collect();
    for _ in 0..2 {
        assert_eq!(engine.request(&request, b"").body(), "OK");
    }
}

#[test]
fn a_log_of_phps_own() {
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("php.log");
    let mut engine = Engine::start(set(vec![admin("error_log", &path.display().to_string())]));
    let _worker = engine.spawn();
    let response = engine.get(&engine.script("log.php", "<?php error_log('mine');"));
    assert_eq!(response.stderr, b"");
    assert!(std::fs::read_to_string(path).unwrap().ends_with("] mine\n"));
}

/// An engine without php.ini, where Debian's shared modules are not loaded.
fn bare(php_values: Vec<PhpSetting>) -> Engine {
    let mut setup = Setup::of(set(php_values));
    setup.start.no_ini = true;
    Engine::set_up(setup)
}

#[test]
fn a_module_of_the_pool() {
    let mut engine = bare(vec![
        admin("extension", "ctype"),
        admin("extension", "apcu"),
        admin("apc.shm_size", "8M"),
        value("extension", "no-such-module"),
        value("extension", "pdo_sqlite"), // needs pdo
    ]);
    let _worker = engine.spawn();
    let script = engine.script(
        "module.php",
        "<?php echo php_ini_loaded_file() ? 'ini' : 'bare', extension_loaded('ctype') ? ' ctype ' : ' - ', extension_loaded('pdo_sqlite') ? 'pdo_sqlite' : '',
         var_export(ctype_alpha('abc'), true), ' ', (new ReflectionExtension('apcu'))->isPersistent() ? 'stays' : 'goes',
         ' ', ini_get('apc.shm_size'), ' ', apcu_fetch('n') ?: 'none'; apcu_store('n', 'kept');",
    );
    // The settings of the module were read when it was loaded, before the pool's own.
    for fetched in ["none", "kept", "kept"] {
        let body = engine.get(&script).body();
        assert_eq!(
            body,
            format!("bare ctype true stays 8M {fetched}"),
            "{}",
            engine.log()
        );
    }
    let log = engine.log();
    assert!(
        log.contains("Unable to load dynamic library 'no-such-module'"),
        "{log}"
    );
    assert!(
        log.contains("ERROR: Unable to set php_value 'extension'\n"),
        "{log}"
    );
}

#[test]
fn an_engine_without_php_ini() {
    let mut engine = bare(Vec::new());
    let _worker = engine.spawn();
    let script = engine.script(
        "bare.php",
        "<?php var_dump(php_ini_loaded_file(), php_ini_scanned_files(), extension_loaded('ctype'));",
    );
    assert_eq!(
        engine.get(&script).body(),
        "bool(false)\nbool(false)\nbool(false)\n"
    );
}

#[test]
fn extended_information_is_compiled_in() {
    for extended in [false, true] {
        let mut setup = Setup::of(pool());
        setup.start.extended_info = extended;
        let dump = ("opcache.opt_debug_level".to_owned(), "0x10000".to_owned());
        setup.start.define.push(dump);
        let mut engine = Engine::set_up(setup);
        let _worker = engine.spawn();
        let script = engine.script("dumped.php", "<?php function f() { return 1; } echo f();");
        for _ in 0..2 {
            assert_eq!(engine.get(&script).body(), "1");
        }
        let log = engine.log();
        assert!(log.contains("dumped.php"), "{log}");
        assert_eq!(log.contains("EXT_STMT"), extended, "{log}");
    }
}

#[test]
fn scripts_see_the_environment_in_its_order() {
    let mut setup = Setup::of(PoolSpec {
        clear_env: false,
        env: vec![("LAST".to_owned(), "1".to_owned())],
        ..pool()
    });
    // The test's own environment, backwards; the engine got it sorted.
    let inherited: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    setup.start.variables = inherited.iter().rev().cloned().collect();
    let expected = setup.start.variables.clone();
    let mut engine = Engine::set_up(setup);
    let _worker = engine.spawn();
    let script = engine.script("env.php", "<?php echo implode(' ', array_keys($_SERVER));");
    let body = engine.get(&script).body();
    let seen: Vec<&str> = body.split(' ').collect();
    assert_eq!(seen[..expected.len()], expected, "{body}");
    assert_eq!(seen[expected.len()], "LAST");
}

#[test]
fn browscap_of_the_pool_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("browscap.ini");
    write(&file, "[*Konqueror/2.*]\nbrowser=Konqueror\n");
    let mut engine = Engine::start(set(vec![admin("browscap", &file.display().to_string())]));
    let _worker = engine.spawn();
    let script = engine.script(
        "browser.php",
        "<?php echo get_browser('Konqueror/2.0')->browser_name_pattern ?? 'unknown';",
    );
    let other = engine.script("other.php", "<?php echo 'other';");
    for _ in 0..3 {
        assert_eq!(engine.get(&script).body(), "*Konqueror/2.*");
        assert_eq!(engine.get(&other).body(), "other");
    }
}
