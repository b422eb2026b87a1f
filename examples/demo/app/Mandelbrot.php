<?php

declare(strict_types=1);

namespace Demo;

/** Draws the Mandelbrot set with letters: honest work for a CPU. */
final class Mandelbrot
{
    private const SHADES = ' .:-=+*#%@';

    public function __construct(private readonly int $columns, private readonly int $rows)
    {
    }

    /** Draws sharper and sharper pictures until $seconds have passed; returns the last one. */
    public function renderFor(float $seconds): string
    {
        $end = hrtime(true) + (int) ($seconds * 1e9);
        $depth = 16;
        do {
            $picture = $this->render($depth);
            $depth *= 2;
        } while (hrtime(true) < $end);

        return $picture;
    }

    private function render(int $depth): string
    {
        $lines = [];
        for ($row = 0; $row < $this->rows; $row++) {
            $lines[] = $this->line(-1.2 + 2.4 * $row / $this->rows, $depth);
        }

        return implode("\n", $lines);
    }

    private function line(float $imaginary, int $depth): string
    {
        $line = '';
        for ($column = 0; $column < $this->columns; $column++) {
            $steps = $this->escapeTime(-2.2 + 3.2 * $column / $this->columns, $imaginary, $depth);
            $line .= $steps === $depth ? '@' : self::SHADES[$steps % 9];
        }

        return $line;
    }

    // Nearly all the time of cpu.php is spent in this loop.
    private function escapeTime(float $real, float $imaginary, int $depth): int
    {
        $x = $y = 0.0;
        for ($step = 0; $step < $depth && $x * $x + $y * $y < 4.0; $step++) {
            [$x, $y] = [$x * $x - $y * $y + $real, 2.0 * $x * $y + $imaginary];
        }

        return $step;
    }
}
