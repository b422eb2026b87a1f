<?php
// Two chains of 22 calls, entered and left as fast as PHP can. Every call has a line of its own, so that each stack
// can be judged: function aN is on line N + 5, bN on line N + 27; a0 is called on line 50, b0 on line 51.

function a0($n) { return a1($n + 1); }
function a1($n) { return a2($n + 1); }
function a2($n) { return a3($n + 1); }
function a3($n) { return a4($n + 1); }
function a4($n) { return a5($n + 1); }
function a5($n) { return a6($n + 1); }
function a6($n) { return a7($n + 1); }
function a7($n) { return a8($n + 1); }
function a8($n) { return a9($n + 1); }
function a9($n) { return a10($n + 1); }
function a10($n) { return a11($n + 1); }
function a11($n) { return a12($n + 1); }
function a12($n) { return a13($n + 1); }
function a13($n) { return a14($n + 1); }
function a14($n) { return a15($n + 1); }
function a15($n) { return a16($n + 1); }
function a16($n) { return a17($n + 1); }
function a17($n) { return a18($n + 1); }
function a18($n) { return a19($n + 1); }
function a19($n) { return a20($n + 1); }
function a20($n) { return a21($n + 1); }
function a21($n) { return $n * 3; }
function b0($n) { return b1($n + 1); }
function b1($n) { return b2($n + 1); }
function b2($n) { return b3($n + 1); }
function b3($n) { return b4($n + 1); }
function b4($n) { return b5($n + 1); }
function b5($n) { return b6($n + 1); }
function b6($n) { return b7($n + 1); }
function b7($n) { return b8($n + 1); }
function b8($n) { return b9($n + 1); }
function b9($n) { return b10($n + 1); }
function b10($n) { return b11($n + 1); }
function b11($n) { return b12($n + 1); }
function b12($n) { return b13($n + 1); }
function b13($n) { return b14($n + 1); }
function b14($n) { return b15($n + 1); }
function b15($n) { return b16($n + 1); }
function b16($n) { return b17($n + 1); }
function b17($n) { return b18($n + 1); }
function b18($n) { return b19($n + 1); }
function b19($n) { return b20($n + 1); }
function b20($n) { return b21($n + 1); }
function b21($n) { return $n * 3; }
echo "ready\n";
for (;;) { a0(1);
 b0(1); }
