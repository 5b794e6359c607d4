;; F66: logs 5,000 lines in a call
;; ends: harmless, levada_handler_log_dropped_total
@imports
(import "levada:handler/logging@0.1.0" (instance $logging
  (type $level0 (enum "trace" "debug" "info" "warn" "error"))
  (export "level" (type $level (eq $level0)))
  (export "write" (func (param "level" $level) (param "message" string)))))
@lowers
(core func $write (canon lower (func $logging "write") (memory $memory) (realloc $realloc)))
@lowered
(export "write" (func $write))
@calls
(import "host" "write" (func $write (param i32 i32 i32)))
@module
(data (i32.const 1024) "The quick brown fox jumps over the lazy dog.")
@misdeed
(loop $again
  (call $write (i32.const 0) (i32.const 1024) (i32.const 44))
  (local.set $a (i32.add (local.get $a) (i32.const 1)))
  (br_if $again (i32.lt_u (local.get $a) (i32.const 5000))))
