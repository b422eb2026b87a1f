<?php

declare(strict_types=1);

namespace Demo;

/** Adds up an order. It trusts its price list too much, see throw.php. */
final class Checkout
{
    public function __construct(private readonly PriceList $prices)
    {
    }

    /**
     * @param array<string, int> $order how many of each product
     * @return int the sum in cents
     */
    public function total(array $order): int
    {
        $sum = 0;
        foreach ($order as $product => $count) {
            $sum += $this->subtotal($product, $count);
        }

        return $sum;
    }

    private function subtotal(string $product, int $count): int
    {
        return $count * $this->prices->cents($product);
    }
}
