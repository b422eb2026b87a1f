<?php
// Does the same work again and again, and says of each piece when it began (hrtime, which is CLOCK_MONOTONIC) and how
// much CPU time and how much time it took: `START CPU WALL`, nanoseconds. `php chunks.php SECONDS`.

function cpu(): int
{
    $used = getrusage();

    return ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) * 1_000_000_000
        + ($used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec']) * 1_000;
}

function fib(int $n): int
{
    return $n < 2 ? $n : fib($n - 1) + fib($n - 2);
}

echo "ready\n";
$end = hrtime(true) + (int) $argv[1] * 1_000_000_000;
do {
    [$cpu, $start] = [cpu(), hrtime(true)];
    fib(22);
    [$now, $used] = [hrtime(true), cpu()];
    echo $start, ' ', $used - $cpu, ' ', $now - $start, "\n";
} while ($now < $end);
