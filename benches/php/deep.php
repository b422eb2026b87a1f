<?php
// Sleeps or spins below so many calls, to be looked at from outside: `php deep.php DEPTH sleep|spin`.
// Says `ready` first. One frame is the script's, one `stay` and, asleep, one `sleep`.

function down(int $depth, bool $asleep): void
{
    if ($depth > 0) {
        down($depth - 1, $asleep);
    } else {
        stay($asleep);
    }
}

function stay(bool $asleep): void
{
    echo "ready\n";
    while ($asleep) {
        sleep(60);
    }
    for ($turn = 0; ; $turn++) {
        $turn ^= $turn << 1;
    }
}

// The script, `stay` and the outermost `down` are there anyway, and `sleep` where it sleeps.
$asleep = $argv[2] === 'sleep';
down((int) $argv[1] - ($asleep ? 4 : 3), $asleep);
