//! PHP with an extension in it that was compiled here: C code with source lines, and an
//! observer of all calls, as tracers and profilers register one.

use std::process::Command;

use glasspool_probes::native::{End, Modules, NativeStack, Natives, Unwinder};
use glasspool_probes::{How, Options, Process, Sample, Stop};

use super::compiled::Extension;
use super::golden::{bless, lines};
use super::series::{Series, available, blesses, skipped};

const SOURCE: &str = include_str!("extension.c");

/// Those that have headers here.
fn with_extension() -> Vec<(Series, Extension)> {
    let all = available().into_iter().filter_map(|series| {
        let extension = series.compile_extension(SOURCE);
        if extension.is_none() {
            skipped(&format!("no headers of PHP {}", series.name));
        }
        Some((series, extension?))
    });
    all.collect()
}

fn look(process: &Process) -> Sample {
    let options = Options {
        stop: Stop::Never,
        ..Options::default()
    };
    let mut unwinder = Unwinder::new(process.pid());
    let mut modules = Modules::with_lines();
    let natives = Natives {
        unwinder: &mut unwinder,
        modules: &mut modules,
    };
    process.sample_with_native(&options, natives).unwrap()
}

/// The lines of the C code, innermost first, without directories.
fn sources(native: &NativeStack) -> Vec<String> {
    let sources = native.frames.iter().filter_map(|frame| frame.source.as_ref());
    sources
        .filter(|source| source.file.ends_with("extension.c"))
        .map(|source| source.to_string().rsplit('/').next().unwrap().to_owned())
        .collect()
}

/// Numbers of the lines of the C code with these words.
fn numbers(words: [&str; 2]) -> Vec<String> {
    let number = |words| SOURCE.lines().position(|line| line.contains(words)).unwrap() + 1;
    words
        .map(|words| format!("extension.c:{}", number(words)))
        .to_vec()
}

#[test]
fn lines_of_c_code_are_told_where_there_is_debug_information() {
    for (series, extension) in with_extension() {
        let script = "<?php\nfunction run() { echo \"ready\\n\"; glass_wait(); }\nrun();\n";
        let files = [("main.php", script)];
        let php = series.start_with("lines", &files, &[&extension.setting]);
        php.wait_asleep();
        let sample = look(&php.open());
        assert_eq!(
            lines(&sample.stack),
            ["glass_wait()", "run() main.php:2", "{main} main.php:3"],
            "PHP {}",
            series.name
        );
        let native = sample.native.unwrap();
        let expected = numbers(["the line that is looked for", "RETURN_LONG(blocks(0))"]);
        assert_eq!(sources(&native), expected, "{native:#?}");
        let blocks = native
            .frames
            .iter()
            .find(|frame| frame.symbol.as_deref() == Some("blocks"));
        let text = blocks.unwrap().to_string();
        assert!(
            text.ends_with(&format!("extension.c:{}", &expected[0]["extension.c:".len()..])),
            "{text}"
        );
        let builtin = native
            .frames
            .iter()
            .find(|frame| frame.builtin.is_some())
            .unwrap();
        assert!(builtin.source.is_some(), "{builtin:?}");
        drop(php);

        // Stripped, as distributions ship it: nothing is known, until the debug file is there.
        let debug = strip(&extension);
        let php = series.start_with("lines", &files, &[&extension.setting]);
        php.wait_asleep();
        let native = look(&php.open()).native.unwrap();
        assert_eq!(sources(&native), Vec::<String>::new(), "{native:#?}");
        assert!(
            native
                .frames
                .iter()
                .all(|frame| frame.symbol.as_deref() != Some("blocks"))
        );
        drop(php);
        let Some(php) = series.start_seeing(&debug, "lines", &files, &[&extension.setting]) else {
            skipped("needs root, to mount a folder over /usr/lib/debug");
            continue;
        };
        php.wait_asleep();
        let native = look(&php.open()).native.unwrap();
        assert_eq!(sources(&native), expected, "{native:#?}");
        assert!(
            native
                .frames
                .iter()
                .any(|frame| frame.symbol.as_deref() == Some("blocks"))
        );
    }
}

/// The kernel does not tell the frame pointer of a process that is not held. Code that has
/// its caller's place in there ends the native stack, and that is said.
#[test]
fn a_caller_that_is_known_by_the_frame_pointer_only_is_said_to_be_missing() {
    for series in available() {
        let Some(extension) = series.compile_extension_with(SOURCE, &["-fno-omit-frame-pointer"]) else {
            skipped(&format!("no headers of PHP {}", series.name));
            continue;
        };
        let files = [("main.php", "<?php echo \"ready\\n\"; glass_wait();\n")];
        let php = series.start_with("pointer", &files, &[&extension.setting]);
        php.wait_asleep();
        let sample = look(&php.open());
        assert_eq!(sample.stack.frames.len(), 2);
        let native = sample.native.unwrap();
        let innermost = native.frames.last().unwrap();
        assert_eq!(innermost.symbol.as_deref(), Some("blocks"), "{native:#?}");
        assert!(
            matches!(native.end, End::NoFramePointer { .. }),
            "{:?}",
            native.end
        );
    }
}

/// Takes the debug information away and gives it back in a file that is found by build id.
fn strip(extension: &Extension) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(&extension.file).unwrap();
    let object = object::File::parse(bytes.as_slice()).unwrap();
    let id = object::Object::build_id(&object).unwrap().unwrap();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = directory.path().join(".build-id").join(&id[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    let debug = folder.join(format!("{}.debug", &id[2..]));
    run(Command::new("objcopy")
        .args(["--only-keep-debug", "--compress-debug-sections=zlib"])
        .args([extension.file.as_path(), &debug]));
    run(Command::new("strip").arg(&extension.file));
    directory
}

fn run(command: &mut Command) {
    assert!(
        command
            .status()
            .expect("needs binutils: run `make deps`")
            .success()
    );
}

/// A script with an observer of all calls, and its stack.
fn observed(case: &str, script: &str, expected: &[&str]) {
    for (series, extension) in with_extension() {
        // There are none before.
        if !series.is_at_least("8.0") {
            continue;
        }
        let php = series.start_with(case, &[("main.php", script)], &[&extension.setting]);
        php.wait_asleep();
        let process = php.open();
        let sample = look(&process);
        assert_eq!(lines(&sample.stack), expected, "PHP {}", series.name);
        assert_eq!(sample.stack.how, How::Exact, "PHP {}", series.name);
        if blesses() && series.has_root() {
            bless(&process, series.name, case);
        }
    }
}

#[test]
fn observed_functions_builtins_and_generators_are_what_they_are() {
    observed(
        "observed",
        "<?php
class Shop {
    public function __call($name, $arguments) { return Store::$name(...$arguments); }
}
class Store {
    public static function __callStatic($name, $arguments) {
        foreach (numbers() as $n) { usort($arguments, fn($a, $b) => wait($a)); }
    }
}
function numbers() { yield from (function () { yield 1; })(); }
function wait(int $n) { echo \"ready\\n\"; fgets(STDIN); return 0; }
(new Shop)->buy(3, 4);
",
        &[
            "fgets(stream: resource)",
            "wait(n: int) main.php:11",
            "Store::{closure}(a: int, b: int) main.php:7",
            "usort(array: &array(2), callback: Closure)",
            "Store::__callStatic(name: string(3), arguments: &array(2)) main.php:7",
            "Shop->__call(name: string(3), arguments: array(2)) main.php:3",
            "{main} main.php:12",
        ],
    );
}

#[test]
fn an_observer_that_blocks_belongs_to_the_call_that_it_observes() {
    observed(
        "observer_begin",
        "<?php
function outer() { return blocked_by_observer(2); }
function blocked_by_observer(int $n) {
    return $n;
}
outer();
",
        &[
            "blocked_by_observer(n: int) main.php:3",
            "outer() main.php:2",
            "{main} main.php:6",
        ],
    );
    observed(
        "observer_end",
        "<?php
function blocked_at_its_end() {
    $n = 1;
    return $n;
}
blocked_at_its_end();
",
        &["blocked_at_its_end() main.php:4", "{main} main.php:6"],
    );
}

#[test]
fn what_an_observer_calls_is_further_in_than_the_call_that_it_observes() {
    observed(
        "observer_callback",
        "<?php
function on_begin() { echo \"ready\\n\"; fgets(STDIN); }
function told_to_php(string $what) {
    return $what;
}
told_to_php('it');
",
        &[
            "fgets(stream: resource)",
            "on_begin() main.php:2",
            "told_to_php(what: string(2)) main.php:3",
            "{main} main.php:6",
        ],
    );
}
