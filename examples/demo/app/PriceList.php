<?php

declare(strict_types=1);

namespace Demo;

final class PriceList
{
    private const CENTS = ['notebook' => 450, 'pencil' => 120];

    /** @throws UnknownProduct */
    public function cents(string $product): int
    {
        return self::CENTS[$product] ?? throw new UnknownProduct($product);
    }
}
