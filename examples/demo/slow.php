<?php

declare(strict_types=1);

// Slow because of what it waits for: a controller, a repository, and an archive that needs 0.3 s per trip.

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

$controller = new ReportController(new ReportRepository(new InvoiceArchive(seconds: 0.3)));
$table = $controller->show(2024);

page('A slow page', lookFor('an event <code>php.request.slow</code> with the stack '
    . '<code>Demo\InvoiceArchive-&gt;waitForStorage()</code>, <code>Demo\ReportRepository-&gt;turnover()</code>, '
    . '<code>Demo\ReportController-&gt;show()</code>, each with file and line.') . $table);
