//! Calls that no PHP code wrote down: made by PHP's own code, or made up by it.

use super::cases::expect;

#[test]
fn autoloaders_and_output_callbacks() {
    expect(
        "autoload",
        // Before, a function of PHP's own is in between.
        "8.2",
        &[(
            "main.php",
            "<?php
spl_autoload_register(function ($class) { ob_start('shown', 1); echo 'x'; });
function shown($text, $phase) { fwrite(STDOUT, \"ready\\n\"); array_walk_recursive($GLOBALS['list'], 'each_one'); return ''; }
function each_one(&$value, $key) { fgets(STDIN); }
$list = [[1]];
class Known { static function find() { return new Missing; } }
Known::find();
",
        )],
        &[
            "fgets(stream: resource)",
            "each_one(value: &int, key: int) main.php:4",
            "array_walk_recursive(array: &array(1), callback: string(8))",
            "shown(text: string(1), phase: int) main.php:3",
            "{closure}(class: string(7)) main.php:2",
            "Known::find() main.php:6",
            "{main} main.php:7",
        ],
    );
}

#[test]
fn a_shutdown_function_is_called_by_nobody() {
    expect(
        "shutdown",
        "7.4",
        &[(
            "main.php",
            "<?php
class Last { function run(int $n) { echo \"ready\\n\"; fgets(STDIN); } }
register_shutdown_function([new Last, 'run'], 5);
",
        )],
        &["fgets(stream: resource)", "Last->run(n: int) main.php:2"],
    );
}

/// A call of a method that is not there goes through a function that PHP makes up for it,
/// also where a callable was made of it.
#[test]
fn trampolines_of_callables() {
    expect(
        "trampoline",
        "7.4",
        &[(
            "main.php",
            "<?php
class Magic {
    function __call($name, $arguments) { return self::later(...$arguments); }
    static function __callStatic($name, $arguments) { echo \"ready\\n\"; fgets(STDIN); }
}
class Other { static function go($n) { return forward_static_call('Magic::other', $n); } }
class Call extends Magic {
    function __call($name, $arguments) { return call_user_func(Closure::fromCallable('Other::go'), 7); }
}
$nothing = Closure::fromCallable([new Call, 'nothing']);
$nothing(1, 'x');
",
        )],
        &[
            "fgets(stream: resource)",
            "Magic::__callStatic(name: string(5), arguments: array(1)) main.php:4",
            "forward_static_call(callback: string(12), args: int)",
            "Other::go(n: int) main.php:6",
            "Call->__call(name: string(7), arguments: array(2)) main.php:8",
            "Call->nothing(int, string(1))",
            "{main} main.php:11",
        ],
    );
}

#[test]
fn first_class_callables_readonly_and_enums() {
    expect(
        "callables",
        "8.2",
        &[(
            "main.php",
            "<?php
enum Suit: string {
    case Hearts = 'h';
    const FIRST = self::Hearts;
    static function pick(string $from): self { return wait(...)($from); }
}
function wait($from) { echo \"ready\\n\"; fgets(STDIN); return Suit::FIRST; }
final readonly class Deck { function __construct(public Suit $suit = Suit::FIRST) { (Suit::pick(...))(from: 'x'); } }
new Deck;
",
        )],
        &[
            "fgets(stream: resource)",
            "wait(from: string(1)) main.php:7",
            "Suit::pick(from: string(1)) main.php:5",
            "Deck->__construct() main.php:8",
            "{main} main.php:9",
        ],
    );
}

#[test]
fn property_hooks_and_lazy_objects() {
    expect(
        "hooks",
        "8.4",
        &[(
            "main.php",
            "<?php
class Point {
    public int $x { get { return $this->y; } set(int $value) { wait(); } }
    public int $y { get => $this->x = 5; }
}
function wait() { echo \"ready\\n\"; fgets(STDIN); }
$lazy = (new ReflectionClass('Point'))->newLazyProxy(function (Point $proxy) { return new Point; });
echo $lazy->x;
",
        )],
        &[
            "fgets(stream: resource)",
            "wait() main.php:6",
            "Point->$x::set(value: int) main.php:3",
            "Point->$y::get() main.php:4",
            "Point->$x::get() main.php:3",
            "{main} main.php:8",
        ],
    );
}
