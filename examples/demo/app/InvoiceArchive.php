<?php

declare(strict_types=1);

namespace Demo;

/** Stands for the storage behind a real site: a database, a disk, a service. Its data is made up. */
final class InvoiceArchive
{
    /** @param float $seconds how long one fetch takes; 0 is a fast archive */
    public function __construct(private readonly float $seconds)
    {
    }

    /** @return list<int> amounts in cents */
    public function invoices(int $report, int $quarter): array
    {
        $this->waitForStorage();
        $amounts = [];
        foreach (range(1, 20) as $number) {
            // The same report always has the same numbers.
            $amounts[] = crc32("{$report}/{$quarter}/{$number}") % 100_000;
        }

        return $amounts;
    }

    // usleep() is to this demo what a slow query is to a real site: PHP sleeps in the kernel and burns
    // no CPU. The backtrace of slow.php ends here.
    private function waitForStorage(): void
    {
        if ($this->seconds > 0) {
            usleep((int) ($this->seconds * 1_000_000));
        }
    }
}
