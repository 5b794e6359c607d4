;; F65: rejects for a reason that is not UTF-8
;; ends: contract, not UTF-8
@misdeed
(call $put (i32.const 0x105) (i32.const 2))
(i32.store16 (global.get $out) (i32.const 0xfeff))
(global.set $out (i32.add (global.get $out) (i32.const 2)))
