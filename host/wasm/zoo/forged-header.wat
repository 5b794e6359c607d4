;; F77: forges a header of the host
;; ends: harmless, levada_handler_reserved_headers_total
@module
;; Sets one header and removes none.
(data (i32.const 1024) "\01\00\00\00\1alevada.origin\02x")
@misdeed
(call $put (i32.const 0x101) (i32.const 20))
(memory.copy (global.get $out) (i32.const 1024) (i32.const 20))
(global.set $out (i32.add (global.get $out) (i32.const 20)))
