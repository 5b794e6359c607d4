;; F66: calls the host for ever
;; ends: limit, host-calls
@imports
(import "levada:handler/call@0.1.0" (instance $call
  (export "attempt" (func (result u32)))))
@lowers
(core func $attempt (canon lower (func $call "attempt")))
@lowered
(export "attempt" (func $attempt))
@calls
(import "host" "attempt" (func $attempt (result i32)))
@misdeed
(loop $ever (drop (call $attempt)) (br $ever))
