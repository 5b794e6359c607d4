;; F64: reads behind the end of its memory
;; ends: trap, out of bounds memory access
@misdeed
(drop (i32.load (i32.const -8)))
