<?php
// One request of the mix that is counted: the query says how it ends.
switch ($_GET['o'] ?? '') {
    case 'not-found': http_response_code(404); break;
    case 'error': http_response_code(500); break;
    case 'fatal': throw new RuntimeException(own_trace());
    case 'line': error_log(own_trace()); break;
    case 'exit': exit('left');
    case 'timeout': sleep(60); break;
    case 'killed': posix_kill(getmypid(), 9); break;
    case 'gone': echo str_repeat('x', 200000); break;
    case 'slow': usleep(400000); break;
}
echo 'end of outcome';

// What the collector compares with the trace id of the log record.
function own_trace(): string
{
    return 'written in trace ' . substr($_SERVER['HTTP_TRACEPARENT'] ?? '', 3, 32);
}
