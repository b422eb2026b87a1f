<?php
// One request of the mix that is counted: the query says how it ends.
switch ($_GET['o'] ?? '') {
    case 'not-found': http_response_code(404); break;
    case 'error': http_response_code(500); break;
    case 'fatal': throw new RuntimeException('meant to be');
    case 'exit': exit('left');
    case 'timeout': sleep(60); break;
    case 'killed': posix_kill(getmypid(), 9); break;
    case 'gone': echo str_repeat('x', 200000); break;
    case 'slow': usleep(400000); break;
}
echo 'end of outcome';
