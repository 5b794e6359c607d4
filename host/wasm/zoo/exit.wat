;; F72: leaves the process
;; ends: trap, leave the process
@imports
(import "wasi:cli/exit@0.2.6" (instance $cli
  (export "exit" (func (param "status" (result))))))
@lowers
(core func $exit (canon lower (func $cli "exit")))
@lowered
(export "exit" (func $exit))
@calls
(import "host" "exit" (func $exit (param i32)))
@misdeed
(call $exit (i32.const 0))
