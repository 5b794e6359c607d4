;; F65: makes a million events out of one
;; ends: contract, are allowed
@misdeed
;; An event without headers and body is two zero bytes.
(global.set $lie-at (i32.mul (memory.grow (i32.const 40)) (i32.const 65536)))
(i32.store (global.get $lie-at) (i32.const 1))
(i32.store offset=4 (global.get $lie-at) (i32.const 0x103))
(i32.store offset=8 (global.get $lie-at) (i32.const 2000000))
(global.set $lie-length (i32.const 2000012))
