<?php
// Hello, and by chance something before it that takes its time: sleeps, waits for somebody
// who says nothing, writes through to the disk, computes.
switch (mt_rand(0, 11)) {
    case 0: case 1:
        usleep(mt_rand(1, 3000));
        break;
    case 2: case 3:
        $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        $read = [$pair[0]];
        $write = $except = null;
        stream_select($read, $write, $except, 0, mt_rand(1, 2000));
        break;
    case 4:
        $file = tmpfile();
        fwrite($file, str_repeat('x', mt_rand(1, 100000)));
        fdatasync($file);
        break;
    case 5: case 6:
        for ($i = mt_rand(1, 50000); $i > 0; $i--);
        break;
    case 7:
        hash('sha256', file_get_contents(__FILE__) . str_repeat('x', mt_rand(1, 1000000)));
        break;
}
echo "hello world\n";
