<?php

declare(strict_types=1);

namespace Demo;

/** Builds reports from the invoices of a year. */
final class ReportRepository
{
    public function __construct(private readonly InvoiceArchive $archive)
    {
    }

    /** @return array<int, int> turnover in cents by quarter, 1 to 4 */
    public function find(int $id): array
    {
        $turnover = [];
        foreach (range(1, 4) as $quarter) {
            $turnover[$quarter] = $this->turnover($id, $quarter);
        }

        return $turnover;
    }

    // One trip to the archive per quarter: the classic "query in a loop". In the backtrace of slow.php this
    // is the line to fix.
    private function turnover(int $id, int $quarter): int
    {
        return array_sum($this->archive->invoices($id, $quarter));
    }
}
