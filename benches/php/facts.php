<?php
// What must be the same on both sides for a comparison to mean anything.

$opcache = function_exists('opcache_get_status') ? opcache_get_status(false) : false;
$extensions = get_loaded_extensions();
sort($extensions);
$names = [
    'memory_limit', 'max_execution_time', 'max_input_time', 'output_buffering', 'variables_order',
    'opcache.enable', 'opcache.validate_timestamps', 'opcache.revalidate_freq', 'opcache.jit',
    'opcache.jit_buffer_size', 'realpath_cache_size', 'zend.assertions', 'error_reporting',
];
echo json_encode([
    'version' => PHP_VERSION,
    'sapi' => PHP_SAPI,
    'zts' => PHP_ZTS,
    'opcache' => is_array($opcache) && $opcache['opcache_enabled'],
    'extensions' => $extensions,
    'ini' => array_combine($names, array_map('ini_get', $names)),
]), "\n";
