<?php
// Sleeps, wakes now and then, or spins below so many calls, to be looked at from outside:
// `php deep.php DEPTH sleep|wake|spin`.
// Says `ready` first. One frame is the script's, one `stay` and, asleep, one `sleep`.

function down(int $depth, string $how): void
{
    if ($depth > 0) {
        down($depth - 1, $how);
    } else {
        stay($how);
    }
}

function stay(string $how): void
{
    echo "ready\n";
    while ($how === 'sleep') {
        sleep(60);
    }
    while ($how === 'wake') {
        usleep(50_000);
    }
    for ($turn = 0; ; $turn++) {
        $turn ^= $turn << 1;
    }
}

// The script, `stay` and the outermost `down` are there anyway, and `sleep` where it sleeps.
$how = $argv[2];
down((int) $argv[1] - ($how === 'spin' ? 3 : 4), $how);
