<?php
// Runs past the slow limit and measures from inside the longest time during which it
// did not run. `from` and `until` (seconds of its own life) frame the look at its stack; `calls` is how many calls
// deep it does so.

function spin(int $from, int $until): array
{
    $start = hrtime(true);
    $longest = $turns = 0;
    $last = $start;
    while ($last - $start < $until) {
        $now = hrtime(true);
        if ($now - $start >= $from && $now - $last > $longest) {
            $longest = $now - $last;
        }
        $last = $now;
        $turns++;
    }

    return [$longest, $turns];
}

function down(int $calls, int $from, int $until): array
{
    return $calls > 0 ? down($calls - 1, $from, $until) : spin($from, $until);
}

$from = (int) (($_GET['from'] ?? 0) * 1e9);
$until = (int) (min($_GET['until'] ?? 0, 10) * 1e9);
$calls = min((int) ($_GET['calls'] ?? 0), 200);
[$longest, $turns] = $calls > 0 ? down($calls - 1, $from, $until) : spin($from, $until);
echo "longest gap $longest ns\nturns $turns\nend of work\n";
