;; What every animal stands in: a packed interceptor that passes every event, and does the misdeed
;; for each whose body begins with `P`. The build script fills the lines that begin with `@`.
;;
;; Memory: the result at 0, an animal's own data from 1024, the answer from 4096, arguments and
;; results of calls from 65536.
(component
@imports
  (core module $ground
    (memory (export "memory") 4)
    (global $heap (export "heap") (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (global.set $heap (i32.add (local.get $at) (local.get 3)))
      (block $fits
        (loop $more
          (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
          (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
          (br $more)))
      (local.get $at)))
  (core instance $ground (instantiate $ground))
  (alias core export $ground "memory" (core memory $memory))
  (alias core export $ground "realloc" (core func $realloc))
@lowers
  (core instance $host
@lowered
  )
  (core module $animal
    (import "ground" "memory" (memory $memory 4))
    (import "ground" "heap" (global $heap (mut i32)))
@calls
    (global $out (mut i32) (i32.const 0))
    ;; An answer that is given instead of the right one, if it has a length.
    (global $lie-at (mut i32) (i32.const 0))
    (global $lie-length (mut i32) (i32.const 0))
    (func $put (param $word i32) (param $length i32)
      (i32.store (global.get $out) (local.get $word))
      (i32.store offset=4 (global.get $out) (local.get $length))
      (global.set $out (i32.add (global.get $out) (i32.const 8))))
@module
    (func $misdeed (local $a i32) (local $b i32)
@misdeed
    )
    (func (export "intercept") (param $index i32) (param i32) (param $events i32) (param i32)
      (result i32)
      (local $n i32) (local $record i32) (local $byte i32) (local $before i32)
      (global.set $lie-length (i32.const 0))
      (global.set $out (i32.const 4100))
      (i32.store (i32.const 4096) (i32.const 1))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $n) (i32.load offset=4 (local.get $index))))
          (local.set $record (i32.add (local.get $index)
            (i32.add (i32.const 8) (i32.mul (local.get $n) (i32.const 16)))))
          (local.set $byte (i32.const 0))
          (if (i32.load offset=12 (local.get $record))
            (then (local.set $byte (i32.load8_u
              (i32.add (local.get $events) (i32.load offset=8 (local.get $record)))))))
          (local.set $before (global.get $out))
          (if (i32.eq (local.get $byte) (i32.const 80)) (then (call $misdeed)))
          (if (i32.eq (local.get $before) (global.get $out))
            (then (call $put (i32.const 0x100) (i32.const 0))))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br $next)))
      (global.set $heap (i32.const 65536))
      (i32.store (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (i32.const 4096))
      (i32.store (i32.const 8) (i32.sub (global.get $out) (i32.const 4096)))
      (if (global.get $lie-length)
        (then
          (i32.store (i32.const 4) (global.get $lie-at))
          (i32.store (i32.const 8) (global.get $lie-length))))
      (i32.const 0)))
  (core instance $i (instantiate $animal
    (with "ground" (instance $ground)) (with "host" (instance $host))))
@more
  (type $later0 (record (field "reason" string) (field "after-ms" (option u32))))
  (export $later "later" (type $later0))
  (type $failure0 (variant (case "retry" $later) (case "fatal" string)))
  (export $failure "failure" (type $failure0))
  (func $f (param "index" (list u8)) (param "events" (list u8))
    (result (result (list u8) (error $failure)))
    (canon lift (core func $i "intercept") (memory $memory) (realloc $realloc)))
  (instance $e (export "failure" (type $failure)) (export "intercept" (func $f)))
  (export "levada:handler/packed-interceptor@0.1.0" (instance $e)))
