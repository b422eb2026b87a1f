<?php
// Keeps its worker for a while, so that requests at the same time meet different workers.
usleep(1000 * min(5000, max(0, (int) ($_GET['ms'] ?? 0))));
$status = opcache_get_status(false);
echo json_encode([
    'pid' => getmypid(),
    'misses' => $status['opcache_statistics']['misses'],
    'hits' => $status['opcache_statistics']['hits'],
    'scripts' => $status['opcache_statistics']['num_cached_scripts'],
]), "\n";
