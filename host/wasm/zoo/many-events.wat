;; F65: makes a thousand events out of one
;; ends: contract, are allowed
@misdeed
(call $put (i32.const 0x103) (i32.const 2000))
(memory.fill (global.get $out) (i32.const 0) (i32.const 2000))
(global.set $out (i32.add (global.get $out) (i32.const 2000)))
