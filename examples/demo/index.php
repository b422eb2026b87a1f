<?php

declare(strict_types=1);

// The home page, and the front controller: an address that is no file, such as /report/42, comes here.

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

[$path] = explode('?', $_SERVER['REQUEST_URI'], 2);
$path = rawurldecode($path);

if ($path === '/' || $path === '/index.php') {
    home();
} elseif (preg_match('~^/report/(\d{1,6})$~', $path, $match) === 1) {
    report((int) $match[1]);
} else {
    notFound($path);
}

function home(): void
{
    $pages = [
        '/slow.php' => ['A slow page', 'Four trips to a slow archive, 1.2 s. The span gets an event with the PHP '
            . 'backtrace while the page is still loading: ReportController → ReportRepository → InvoiceArchive.'],
        '/socket.php' => ['Waiting for a service', 'A rate service that never answers, 0.8 s. The event names '
            . 'the line of RateClient->readLine() that PHP waits in.'],
        '/cpu.php' => ['Burning CPU', 'The Mandelbrot set, 0.8 s. The worker is running, not waiting: CPU time on '
            . 'the span equals its duration, the backtrace ends in Mandelbrot->escapeTime().'],
        '/throw.php' => ['An uncaught exception', 'Status 500. The span is an error and carries PHP\'s message.'],
        '/later.php' => ['Answer now, work later', 'fastcgi_finish_request(): the visitor waits for milliseconds, '
            . 'the worker is busy for half a second more, and the span covers that too.'],
        '/report/42' => ['A pretty address', 'No such file: index.php routes it. Fast, the same code as the slow '
            . 'page with a fast archive behind it.'],
    ];
    $list = '';
    foreach ($pages as $address => [$name, $text]) {
        $list .= '<li><a href="' . escape($address) . '">' . escape($name) . '</a> <code>' . escape($address)
            . '</code><p>' . escape($text) . '</p></li>';
    }
    page('Glasspool demo', '<p class="lead">Each page below does one thing that makes sites slow. Open one, then '
        . 'look at the terminal where Glasspool runs: every request ends as one span, and a slow one explains '
        . "itself.</p><ul class=\"pages\">{$list}</ul>");
}

function report(int $id): void
{
    $controller = new ReportController(new ReportRepository(new InvoiceArchive(seconds: 0)));
    page("Report {$id}", lookFor('a short span without a slow event. Its <code>url.path</code> is the address that '
        . 'you asked for, its script is <code>index.php</code>.') . $controller->show($id));
}

function notFound(string $path): void
{
    http_response_code(404);
    page('No such page', '<p>There is nothing at <code>' . escape($path) . '</code>.</p>');
}
