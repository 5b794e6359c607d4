;; F67: opens a TCP socket
;; ends: harmless
@imports
(import "wasi:sockets/network@0.2.6" (instance $network
  (type $c0 (enum "unknown" "access-denied" "not-supported"))
  (export "error-code" (type $c (eq $c0)))
  (type $f0 (enum "ipv4" "ipv6")) (export "ip-address-family" (type $f (eq $f0)))))
(alias export $network "error-code" (type $code))
(alias export $network "ip-address-family" (type $family))
(import "wasi:sockets/tcp@0.2.6" (instance $tcp (export "tcp-socket" (type (sub resource)))))
(alias export $tcp "tcp-socket" (type $socket))
(import "wasi:sockets/tcp-create-socket@0.2.6" (instance $create
  (alias outer 1 $code (type $c0)) (export "error-code" (type $c (eq $c0)))
  (alias outer 1 $family (type $f0)) (export "ip-address-family" (type $f (eq $f0)))
  (alias outer 1 $socket (type $s0)) (export "tcp-socket" (type $s (eq $s0)))
  (export "create-tcp-socket"
    (func (param "address-family" $f) (result (result (own $s) (error $c)))))))
@lowers
(core func $open (canon lower (func $create "create-tcp-socket") (memory $memory)))
@lowered
(export "open" (func $open))
@calls
(import "host" "open" (func $open (param i32 i32)))
@misdeed
;; It must be told that access is denied: anything else it shows by a trap.
(call $open (i32.const 0) (i32.const 1024))
(if (i32.ne (i32.load8_u (i32.const 1024)) (i32.const 1)) (then unreachable))
(if (i32.ne (i32.load8_u (i32.const 1028)) (i32.const 1)) (then unreachable))
