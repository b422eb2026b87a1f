<?php

declare(strict_types=1);

namespace Demo;

final class UnknownProduct extends \RuntimeException
{
    public function __construct(string $product)
    {
        parent::__construct("no price for product \"{$product}\"");
    }
}
