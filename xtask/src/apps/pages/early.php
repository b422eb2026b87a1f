<?php
// Answers, and works on.
echo "answered\n";
fastcgi_finish_request();
usleep(700000);
