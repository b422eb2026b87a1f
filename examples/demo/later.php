<?php

declare(strict_types=1);

// Answers at once, then goes on working: the visitor does not wait for the newsletter.

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

page('Answer now, work later', lookFor('this page came at once, and the span is half a second long: it covers the '
    . 'work that was done after the answer.')
    . '<p>Thank you for subscribing. Five letters are being sent while you read this.</p>');

// Only FastCGI has this function; PHP's built-in server makes the visitor wait.
if (function_exists('fastcgi_finish_request')) {
    fastcgi_finish_request();
}

(new Newsletter())->sendTo(['ada@example.org', 'alan@example.org', 'edsger@example.org', 'grace@example.org',
    'kurt@example.org']);
