<?php
// The pid tells workers apart.
echo 'hello from ', getmypid(), "\n";
