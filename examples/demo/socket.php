<?php

declare(strict_types=1);

// Slow because of somebody else: a service that accepts the connection and then says nothing.

namespace Demo;

require __DIR__ . '/app/bootstrap.php';

// The silent service is a listening socket of this very script. The kernel completes connections to it by
// itself, and since nobody calls stream_socket_accept(), no answer will ever come.
$silent = stream_socket_server('tcp://127.0.0.1:0') ?: throw new \RuntimeException('cannot listen on 127.0.0.1');
$address = stream_socket_get_name($silent, false);

$rate = (new RateClient($address, timeout: 0.8))->rate('USD');
fclose($silent);

$answer = $rate === null
    ? '<p>The rate service at <code>' . escape($address) . '</code> has not answered within 0.8 seconds.</p>'
    : '<p>One euro is ' . escape((string) $rate) . ' dollars.</p>';
page('Waiting for a service', lookFor('the backtrace ends in <code>Demo\RateClient-&gt;readLine()</code>: the '
    . 'line that waits, not the page that asked for a rate.') . $answer);
