<?php

declare(strict_types=1);

namespace Demo;

/** Turns a report into a page. */
final class ReportController
{
    public function __construct(private readonly ReportRepository $reports)
    {
    }

    /** The HTML of report $id: one row per quarter, and the sum. */
    public function show(int $id): string
    {
        $report = $this->reports->find($id);
        $rows = '';
        foreach ($report as $quarter => $cents) {
            $rows .= "<tr><th scope=\"row\">Q{$quarter}</th><td>" . self::money($cents) . '</td></tr>';
        }
        $sum = self::money(array_sum($report));

        return "<table><caption>Report {$id}</caption><tbody>{$rows}</tbody>"
            . "<tfoot><tr><th scope=\"row\">Year</th><td>{$sum}</td></tr></tfoot></table>";
    }

    private static function money(int $cents): string
    {
        return number_format($cents / 100, 2) . ' €';
    }
}
