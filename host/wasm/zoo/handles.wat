;; F78: takes handles of resources and never gives one back
;; ends: limit, handles
@imports
(import "wasi:io/error@0.2.6" (instance $error0 (export "error" (type (sub resource)))))
(alias export $error0 "error" (type $error))
(import "wasi:io/streams@0.2.6" (instance $streams (export "output-stream" (type (sub resource)))))
(alias export $streams "output-stream" (type $stream))
(import "wasi:cli/stdout@0.2.6" (instance $cli
  (alias outer 1 $stream (type $s0))
  (export "output-stream" (type $s (eq $s0)))
  (export "get-stdout" (func (result (own $s))))))
@lowers
(core func $stdout (canon lower (func $cli "get-stdout")))
@lowered
(export "stdout" (func $stdout))
@calls
(import "host" "stdout" (func $stdout (result i32)))
@misdeed
(loop $ever (drop (call $stdout)) (br $ever))
