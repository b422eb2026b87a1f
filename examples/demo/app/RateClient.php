<?php

declare(strict_types=1);

namespace Demo;

/** Asks an exchange rate service, one line of text each way, over TCP. */
final class RateClient
{
    /** @param float $timeout seconds to wait for an answer */
    public function __construct(private readonly string $address, private readonly float $timeout)
    {
    }

    /** The rate of $currency against the euro; null if the service has not answered in time. */
    public function rate(string $currency): ?float
    {
        $service = stream_socket_client("tcp://{$this->address}", $code, $message, $this->timeout);
        if ($service === false) {
            throw new \RuntimeException("cannot connect to rate service {$this->address}: {$message}");
        }
        fwrite($service, "RATE {$currency}\n");
        $line = $this->readLine($service);
        fclose($service);

        return $line === null ? null : (float) $line;
    }

    /** @param resource $service */
    private function readLine($service): ?string
    {
        $seconds = (int) $this->timeout;
        stream_set_timeout($service, $seconds, (int) (($this->timeout - $seconds) * 1_000_000));
        $line = fgets($service); // PHP waits here, in poll(2).

        return $line === false ? null : trim($line);
    }
}
