;; F74: has a secret, and asks for that of another handler
;; granted: secrets
;; ends: harmless
@imports
(import "levada:handler/secrets@0.1.0" (instance $secrets
  (export "get" (func (param "name" string) (result (option string))))))
@lowers
(core func $get (canon lower (func $secrets "get") (memory $memory) (realloc $realloc)))
@lowered
(export "get" (func $get))
@calls
(import "host" "get" (func $get (param i32 i32 i32)))
@module
(data (i32.const 1024) "ownneighbour../neighbour")
@misdeed
;; It must have its own, and not find the other's: anything else it shows by a trap.
(call $get (i32.const 1024) (i32.const 3) (i32.const 2048))
(if (i32.eqz (i32.load8_u (i32.const 2048))) (then unreachable))
(call $get (i32.const 1027) (i32.const 9) (i32.const 2048))
(if (i32.load8_u (i32.const 2048)) (then unreachable))
(call $get (i32.const 1036) (i32.const 12) (i32.const 2048))
(if (i32.load8_u (i32.const 2048)) (then unreachable))
