;; F64: divides by zero
;; ends: trap, divide by zero
@misdeed
(drop (i32.div_u (i32.const 1) (local.get $a)))
