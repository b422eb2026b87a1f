<?php

declare(strict_types=1);

// Slow because of its own work: nothing is waited for, the CPU is busy.

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

$picture = (new Mandelbrot(columns: 72, rows: 30))->renderFor(seconds: 0.8);

page('Burning CPU', lookFor('no wait at all: the CPU time of the span is its duration. The backtrace was taken '
    . 'from a running worker, somewhere below <code>Demo\Mandelbrot-&gt;render()</code>.') . '<pre>' . escape($picture) . '</pre>');
