;; F77: gives no verdict
;; ends: contract, not covered
@misdeed
(global.set $lie-at (i32.const 4096))
(global.set $lie-length (i32.const 4))
