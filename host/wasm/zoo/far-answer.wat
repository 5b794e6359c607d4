;; F65: answers with 1 GiB that is not in its memory
;; ends: trap, out of bounds
@misdeed
(global.set $lie-length (i32.const 0x40000000))
