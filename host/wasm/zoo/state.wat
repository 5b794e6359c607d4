;; F74: has state, and reads that of another handler
;; granted: state
;; ends: harmless
@imports
(import "levada:handler/state@0.1.0" (instance $state
  (export "get" (func (param "key" string) (result (option (list u8)))))
  (export "keys" (func (param "prefix" string) (param "after" (option string))
    (param "limit" u32) (result (list string))))))
@lowers
(core func $get (canon lower (func $state "get") (memory $memory) (realloc $realloc)))
(core func $keys (canon lower (func $state "keys") (memory $memory) (realloc $realloc)))
@lowered
(export "get" (func $get))
(export "keys" (func $keys))
@calls
(import "host" "get" (func $get (param i32 i32 i32)))
(import "host" "keys" (func $keys (param i32 i32 i32 i32 i32 i32 i32)))
@module
(data (i32.const 1024) "canaryneighbour/canary../neighbour/canary")
@misdeed
;; What it finds it shows by a trap.
(call $get (i32.const 1024) (i32.const 6) (i32.const 2048))
(if (i32.load8_u (i32.const 2048)) (then unreachable))
(call $get (i32.const 1030) (i32.const 16) (i32.const 2048))
(if (i32.load8_u (i32.const 2048)) (then unreachable))
(call $get (i32.const 1046) (i32.const 19) (i32.const 2048))
(if (i32.load8_u (i32.const 2048)) (then unreachable))
(call $keys (i32.const 1024) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
  (i32.const 1000) (i32.const 2048))
(if (i32.load (i32.const 2052)) (then unreachable))
