//! The scripts and their stacks. Each waits for a line on its standard input.

use glasspool_probes::php::fibers::read_suspended;
use glasspool_probes::{How, Options, Stop, read_stack};

use super::golden::{self, bless, lines};
use super::series::{Series, available, blesses};

/// Runs a script on every PHP that has its language (`since`), and expects these frames.
pub(crate) fn expect(name: &str, since: &str, files: &[(&str, &str)], expected: &[&str]) {
    for series in available().iter().filter(|series| series.is_at_least(since)) {
        let php = series.start(name, files);
        php.wait_asleep();
        let process = php.open();
        let options = Options {
            stop: Stop::Never,
            ..Options::default()
        };
        let sample = process.sample(&options).unwrap();
        assert_eq!(
            lines(&sample.stack),
            adapted(series, expected),
            "{name} on PHP {}",
            series.name
        );
        assert_eq!(sample.stack.how, How::Exact, "{name} on PHP {}", series.name);
        assert!(!sample.stack.cut);
        assert!(sample.wait.is_some(), "it sleeps");
        if blesses() && series.has_root() {
            bless(&process, series.name, name);
        }
    }
}

/// The names of builtins' parameters are PHP's, and it has changed some in 8.0.
fn adapted(series: &Series, expected: &[&str]) -> Vec<String> {
    let renamed = [
        ("fgets(stream: ", "fgets(fp: "),
        ("usort(array: ", "usort(arg: "),
        ("callback: Closure)", "cmp_function: Closure)"),
        ("(newThis: ", "(newthis: "),
        (", args: array(", ", parameters: array("),
        (
            "forward_static_call(callback: ",
            "forward_static_call(function_name: ",
        ),
        (", args: int)", ", parameters: int)"),
    ];
    let adapt = |line: &&str| {
        let mut line = (*line).to_owned();
        if !series.is_at_least("8.0") {
            for (new, old) in renamed {
                line = line.replace(new, old);
            }
        }
        // Since then their names have the function in them that they are made in, and
        // no namespace of their own.
        if series.is_at_least("8.4") {
            line = line.replace("App\\{closure}", "{closure}");
        }
        line
    };
    expected.iter().map(adapt).collect()
}

#[test]
fn functions_methods_statics_closures_and_callbacks() {
    expect(
        "calls",
        "7.4",
        &[(
            "main.php",
            "<?php
namespace App {
abstract class Store {
    public static function open(int $n): Store { return new static($n); }
    public function __construct($n) { (function (array $rows) {
        usort($rows, function ($a, $b) { return $this->order($a, $b, 1.5, null, true); });
    })->call($this, [3, 4]); }
    protected function order($a, $b) { return Later::wait($this, 'what'); }
}
class Shop extends Store {}
final class Later {
    static function wait(Store $store, string $what) { return \\blocked(); }
}
}
namespace Other {
function run(?array $options) {
    return \\App\\Shop::open(7);
}
}
namespace {
function blocked() {
    echo \"ready\\n\";
    return fgets(STDIN);
}
\\Other\\run(null);
}
",
        )],
        &[
            "fgets(stream: resource)",
            "blocked() main.php:23",
            "App\\Later::wait(store: App\\Shop, what: string(4)) main.php:12",
            "App\\Store->order(a: int, b: int, float, null, bool) main.php:8",
            "App\\Shop->App\\{closure}(a: int, b: int) main.php:6",
            "usort(array: &array(2), callback: Closure)",
            "App\\Shop->App\\{closure}(rows: &array(2)) main.php:6",
            "Closure->call(newThis: App\\Shop, args: array(2))",
            "App\\Store->__construct(n: int) main.php:7",
            "App\\Store::open(n: int) main.php:4",
            "Other\\run(options: null) main.php:17",
            "{main} main.php:25",
        ],
    );
}

#[test]
fn includes_requires_and_evals() {
    expect(
        "files",
        "7.4",
        &[
            (
                "main.php",
                "<?php
function load($file) { return require_once __DIR__ . '/' . $file; }
load('once.php');
",
            ),
            ("once.php", "<?php\n\nreturn include __DIR__ . '/inner.php';\n"),
            (
                "inner.php",
                "<?php
eval('function made() {
    echo \"ready\\n\";
    fgets(STDIN);
}
made();');
",
            ),
        ],
        &[
            "fgets(stream: resource)",
            "made() inner.php(2) : eval()'d code:3",
            "{eval} inner.php(2) : eval()'d code:5",
            "{include} inner.php:2",
            "{include} once.php:3",
            "load(file: string(8)) main.php:2",
            "{main} main.php:3",
        ],
    );
}

#[test]
fn generators_and_all_that_delegate() {
    expect(
        "generators",
        "7.4",
        &[(
            "main.php",
            "<?php
class Rows implements IteratorAggregate {
    #[ReturnTypeWillChange]
    public function getIterator() { yield from outer(2); }
}
function block() { echo \"ready\\n\"; fgets(STDIN); }
function inner(string $what) {
    yield 1;
    block();
}
function middle() {
    yield 0;
    yield from inner('abc');
}
function outer(int $n) {
    yield from [1, 2];
    yield from middle();
}
function drain(iterable $rows) {
    foreach ($rows as $row) {
    }
}
drain(new Rows);
",
        )],
        &[
            "fgets(stream: resource)",
            "block() main.php:6",
            "inner(what: string(3)) main.php:9",
            "middle() main.php:13",
            "outer(n: int) main.php:17",
            "Rows->getIterator() main.php:4",
            "drain(rows: Rows) main.php:20",
            "{main} main.php:23",
        ],
    );
}

#[test]
fn a_generator_resumed_by_a_method() {
    expect(
        "resumed",
        "7.4",
        &[(
            "main.php",
            "<?php
function numbers() {
    while (true) {
        $line = yield;
        if ($line) { echo \"ready\\n\"; fgets(STDIN); }
    }
}
$numbers = numbers();
$numbers->current();
$numbers->send('now');
",
        )],
        &[
            "fgets(stream: resource)",
            "numbers() main.php:5",
            "Generator->send(value: string(3))",
            "{main} main.php:10",
        ],
    );
}

#[test]
fn magic_calls_properties_iterators_and_destructors() {
    expect(
        "magic",
        "7.4",
        &[(
            "main.php",
            "<?php
class Magic implements ArrayAccess {
    public function __call($name, $arguments) { return Still::$name(...$arguments); }
    public function __get($name) { return $this['key']; }
    #[ReturnTypeWillChange]
    public function offsetGet($key) { return (string) $this; }
    #[ReturnTypeWillChange]
    public function offsetSet($key, $value) {}
    #[ReturnTypeWillChange]
    public function offsetExists($key) { return true; }
    #[ReturnTypeWillChange]
    public function offsetUnset($key) {}
    public function __toString() { $last = new Last; unset($last); return ''; }
}
class Still { public static function __callStatic($name, $arguments) { return (new Magic)->field; } }
class Last { public function __destruct() { (new Call)(1); } }
class Call { public function __invoke($n) { echo \"ready\\n\"; fgets(STDIN); } }
call_user_func_array([new Magic, 'anything'], [1, 'two']);
",
        )],
        &[
            "fgets(stream: resource)",
            "Call->__invoke(n: int) main.php:17",
            "Last->__destruct() main.php:16",
            "Magic->__toString() main.php:13",
            "Magic->offsetGet(key: string(3)) main.php:6",
            "Magic->__get(name: string(5)) main.php:4",
            "Still::__callStatic(name: string(8), arguments: array(2)) main.php:15",
            "Magic->__call(name: string(8), arguments: array(2)) main.php:3",
            "{main} main.php:18",
        ],
    );
}

#[test]
fn a_running_fiber_goes_on_into_who_resumed_it() {
    expect(
        "fiber",
        "8.2",
        &[(
            "main.php",
            "<?php
function wait(int ...$numbers) { echo \"ready\\n\"; fgets(STDIN); }
$fiber = new Fiber(function (string $first) {
    $inner = new Fiber(function () { Fiber::suspend(); wait(1, 2, 3); });
    $inner->start();
    Fiber::suspend();
    $inner->resume();
});
$fiber->start('x');
function resume(Fiber $fiber) { $fiber->resume(); }
resume($fiber);
",
        )],
        &[
            "fgets(stream: resource)",
            "wait(numbers: int, numbers: int, numbers: int) main.php:2",
            "{closure}() main.php:4",
            "{fiber}",
            "Fiber->resume()",
            "{closure}(first: string(1)) main.php:7",
            "{fiber}",
            "Fiber->resume()",
            "resume(fiber: Fiber) main.php:10",
            "{main} main.php:11",
        ],
    );
}

#[test]
fn suspended_fibers_have_stacks_of_their_own() {
    for series in available().iter().filter(|series| series.is_at_least("8.1")) {
        let text = "<?php
$objects = [];
for ($i = 0; $i < 5000; $i++) { $objects[] = new ArrayObject; }
function pause(string $why) { Fiber::suspend($why); }
function task($n) { pause('task ' . $n); }
$fibers = [];
foreach ([1, 2] as $n) {
    $fibers[] = $fiber = new Fiber(function () use ($n) {
        task($n);
    });
    $fiber->start();
}
$never = new Fiber('task');
$outer = new Fiber(function () { echo \"ready\\n\"; fgets(STDIN); });
$outer->start();
";
        let php = series.start("suspended", &[("main.php", text)]);
        php.wait_asleep();
        let process = php.open();
        let suspended = read_suspended(process.memory(), process.build(), golden::want()).unwrap();
        assert!(!suspended.cut);
        let stacks: Vec<Vec<String>> = suspended.stacks.iter().map(lines).collect();
        let expected = [
            "Fiber::suspend(value: string(6))",
            "pause(why: string(6)) main.php:4",
            "task(n: int) main.php:5",
            "{closure}() main.php:9",
            "{fiber}",
        ];
        assert_eq!(stacks, [expected, expected], "PHP {}", series.name);
        assert!(suspended.stacks.iter().all(|stack| stack.how == How::Exact));
    }
}

#[test]
fn named_arguments_defaults_and_extras() {
    expect(
        "named",
        "8.2",
        &[(
            "main.php",
            "<?php
function last(int $a = 1, string $b = 'b', ...$rest) { echo \"ready\\n\"; fgets(STDIN); }
function middle($x, $y, $z = 3) { last(b: 'bb', extra: 5); }
function many() { middle(y: 1.5, x: [1]); }
many(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
",
        )],
        &[
            "fgets(stream: resource)",
            "last(a: int, b: string(2), …named) main.php:2",
            "middle(x: array(1), y: float) main.php:3",
            "many(int, int, int, int, int, int, int, int, …2 more) main.php:4",
            "{main} main.php:5",
        ],
    );
}

#[test]
fn the_limit_cuts_a_deep_recursion_and_says_so() {
    for series in available() {
        let text = "<?php
function down($n) { if ($n == 0) { echo \"ready\\n\"; fgets(STDIN); return; } down($n - 1); }
down(5000);
";
        let php = series.start("deep", &[("main.php", text)]);
        php.wait_asleep();
        let process = php.open();
        for (max_frames, frames) in [(20, 20), (usize::MAX, 1024)] {
            let stack = read_stack(process.memory(), process.build(), max_frames).unwrap();
            assert_eq!((stack.frames.len(), stack.cut), (frames, true), "{}", series.name);
            assert_eq!(stack.how, How::Exact);
            let down = |frame: &glasspool_probes::Frame| frame.function == "down" && frame.line == Some(2);
            assert!(stack.frames[1..].iter().all(down));
        }
    }
}
