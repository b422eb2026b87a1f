<?php

declare(strict_types=1);

namespace Demo;

/** Pretends to send mail: work that a visitor should not have to wait for. */
final class Newsletter
{
    /** @param list<string> $addresses */
    public function sendTo(array $addresses): void
    {
        foreach ($addresses as $address) {
            $this->send($address);
        }
    }

    private function send(string $address): void
    {
        usleep(100_000); // A mail server that needs a tenth of a second per letter.
    }
}
