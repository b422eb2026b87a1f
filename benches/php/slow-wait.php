<?php
// Sleeps in the kernel past the slow limit.
usleep((int) (min($_GET['until'] ?? 0, 10) * 1e6));
echo "end of work\n";
