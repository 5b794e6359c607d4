;; F74: looks for environment variables and arguments
;; ends: harmless
@imports
(import "wasi:cli/environment@0.2.6" (instance $cli
  (export "get-environment" (func (result (list (tuple string string)))))
  (export "get-arguments" (func (result (list string))))))
@lowers
(core func $variables (canon lower (func $cli "get-environment") (memory $memory) (realloc $realloc)))
(core func $arguments (canon lower (func $cli "get-arguments") (memory $memory) (realloc $realloc)))
@lowered
(export "variables" (func $variables))
(export "arguments" (func $arguments))
@calls
(import "host" "variables" (func $variables (param i32)))
(import "host" "arguments" (func $arguments (param i32)))
@misdeed
;; What it finds it shows by a trap.
(call $variables (i32.const 1024))
(call $arguments (i32.const 1032))
(if (i32.or (i32.load (i32.const 1028)) (i32.load (i32.const 1036))) (then unreachable))
