<?php
// About 50 ms of PHP and nothing else: calls, arithmetic, strings, arrays, a sort.

function fib(int $n): int
{
    return $n < 2 ? $n : fib($n - 1) + fib($n - 2);
}

$sum = fib(25);
$seed = 1;
$numbers = [];
for ($i = 0; $i < 140000; $i++) {
    $seed = ($seed * 1103515245 + 12345) & 0x7fffffff;
    $numbers[] = $seed;
}
sort($numbers);
$text = '';
foreach ($numbers as $i => $number) {
    if ($i % 8 === 0) {
        $text .= str_pad(strrev((string) $number), 12, '.', STR_PAD_LEFT);
    }
    $sum = ($sum + ($number ^ $i)) & 0xffffffff;
}
for ($i = 0; $i < 14000; $i++) {
    $sum = ($sum + crc32(substr($text, $i * 7, 40)) + strlen(md5("$i"))) & 0xffffffff;
}
echo "sum $sum\nend of work\n";
