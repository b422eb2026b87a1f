<?php
// Holds its worker long enough for simultaneous requests to reach different workers.
usleep(50000);
echo 'pid ', getmypid(), "\n";
