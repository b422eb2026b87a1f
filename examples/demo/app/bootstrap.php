<?php

declare(strict_types=1);

// Shared by every page: finds classes by name, and frames the HTML.
// The demo has no dependencies, so this is all of its "framework".

namespace Demo;

spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/' . basename(str_replace('\\', '/', $class)) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

/** Text made safe to stand inside HTML, attributes included. */
function escape(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE);
}

/** Prints a whole page around $body, which is HTML already. */
function page(string $title, string $body): void
{
    $title = escape($title);
    $milliseconds = number_format((microtime(true) - $_SERVER['REQUEST_TIME_FLOAT']) * 1000);
    $home = $title === 'Glasspool demo' ? '' : '<p><a href="/">← all pages</a></p>';
    header('Content-Type: text/html; charset=utf-8');
    echo <<<HTML
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>{$title}</title>
        <link rel="stylesheet" href="/style.css">
        </head>
        <body>
        <main>
        {$home}
        <h1>{$title}</h1>
        {$body}
        </main>
        <footer>PHP needed {$milliseconds} ms for this page.</footer>
        </body>
        </html>

        HTML;
}

/** A box that tells what the trace of this page shows. */
function lookFor(string $html): string
{
    return "<aside><strong>In the trace</strong> {$html}</aside>";
}
