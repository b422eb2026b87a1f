<?php

declare(strict_types=1);

// Fails a few calls deep, and nobody catches it: the answer is an empty page with status 500 (or, with
// display_errors on, PHP's own message).

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

$checkout = new Checkout(new PriceList());
$total = $checkout->total(['pencil' => 3, 'unicorn' => 1]);

page('An order', "<p>{$total} cents, please.</p>"); // Never reached: there is no price for unicorns.
