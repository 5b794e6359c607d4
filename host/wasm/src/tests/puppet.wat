;; A packed interceptor that does what the first byte of each body says.
(component
  (core module $m
    (memory (export "memory") 4)
    (global $heap (mut i32) (i32.const 65536))
    (global $out (mut i32) (i32.const 0))
    (global $calls (mut i32) (i32.const 0))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $heap))
      (global.set $heap (i32.add (global.get $heap) (local.get 3)))
      (block $fits
        (loop $more
          (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
          (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
          (br $more)))
      (local.get $at))
    (func $deep (param i64 i64 i64 i64) (result i64)
      (i64.add (local.get 0)
        (call $deep (local.get 1) (local.get 2) (local.get 3)
          (i64.add (local.get 0) (i64.const 1)))))
    (func $put (param $word i32) (param $length i32)
      (i32.store (global.get $out) (local.get $word))
      (i32.store offset=4 (global.get $out) (local.get $length))
      (global.set $out (i32.add (global.get $out) (i32.const 8))))
    (func $act (param $byte i32)
      (if (i32.eq (local.get $byte) (i32.const 76)) (then (loop $ever (br $ever))))       ;; L
      (if (i32.eq (local.get $byte) (i32.const 85)) (then unreachable))                    ;; U
      (if (i32.eq (local.get $byte) (i32.const 71))                                        ;; G
        (then (loop $ever (drop (memory.grow (i32.const 16))) (br $ever))))
      (if (i32.eq (local.get $byte) (i32.const 83))                                        ;; S
        (then (drop (call $deep (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))))
      (if (i32.eq (local.get $byte) (i32.const 79))                                        ;; O
        (then (drop (i32.load (i32.const -8)))))
      (if (i32.eq (local.get $byte) (i32.const 68))                                        ;; D
        (then (drop (i32.div_u (i32.const 1) (i32.const 0)))))
      (if (i32.eq (local.get $byte) (i32.const 120))                                       ;; x
        (then (call $put (i32.const 0x104) (i32.const 2))
              (i32.store16 (global.get $out) (i32.const 0x6f6e))
              (global.set $out (i32.add (global.get $out) (i32.const 2)))
              (return)))
      (if (i32.eq (local.get $byte) (i32.const 106))                                       ;; j
        (then (call $put (i32.const 0x105) (i32.const 2))
              (i32.store16 (global.get $out) (i32.const 0x6f6e))
              (global.set $out (i32.add (global.get $out) (i32.const 2)))
              (return)))
      (if (i32.eq (local.get $byte) (i32.const 87))                                        ;; W
        (then (call $put (i32.const 0x10900) (i32.const 0)) (return)))
      (call $put (i32.const 0x100) (i32.const 0)))
    (func (export "intercept") (param $index i32) (param i32) (param $events i32) (param i32)
      (result i32)
      (local $n i32) (local $count i32) (local $record i32) (local $byte i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (local.set $count (i32.load offset=4 (local.get $index)))
      (global.set $out (i32.const 4096))
      (i32.store (global.get $out) (i32.const 1))
      (global.set $out (i32.const 4100))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $n) (local.get $count)))
          (local.set $record (i32.add (local.get $index)
            (i32.add (i32.const 8) (i32.mul (local.get $n) (i32.const 16)))))
          (local.set $byte (i32.const 0))
          (if (i32.load offset=12 (local.get $record))
            (then (local.set $byte (i32.load8_u
              (i32.add (local.get $events) (i32.load offset=8 (local.get $record)))))))
          (if (i32.or (i32.eq (local.get $byte) (i32.const 82)) (i32.eq (local.get $byte) (i32.const 70)))
            (then                                                                          ;; R, F
              (i32.store (i32.const 0) (i32.const 1))
              (i32.store (i32.const 4) (i32.eq (local.get $byte) (i32.const 70)))
              (i32.store (i32.const 8) (i32.const 64))
              (i32.store (i32.const 12) (i32.const 4))
              (i32.store (i32.const 16) (i32.const 1))
              (i32.store (i32.const 20) (i32.const 1500))
              (i32.store (i32.const 64) (i32.const 0x79737562))                            ;; "busy"
              (global.set $heap (i32.const 65536))
              (return (i32.const 0))))
          (if (i32.eq (local.get $byte) (i32.const 72))                                    ;; H
            (then
              (i32.store (i32.const 0) (i32.const 0))
              (i32.store (i32.const 4) (i32.const 0))
              (i32.store (i32.const 8) (i32.const 0x40000000))
              (return (i32.const 0))))
          (if (i32.eq (local.get $byte) (i32.const 77))                                    ;; M
            (then
              (drop (memory.grow (i32.const 150)))
              (i32.store (i32.const 0) (i32.const 0))
              (i32.store (i32.const 4) (i32.const 0))
              (i32.store (i32.const 8) (i32.const 9000000))
              (return (i32.const 0))))
          (if (i32.eq (local.get $byte) (i32.const 99))                                    ;; c
            (then (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))))
          (call $act (local.get $byte))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br $next)))
      (global.set $heap (i32.const 65536))
      (i32.store (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (i32.const 4096))
      (i32.store (i32.const 8) (i32.sub (global.get $out) (i32.const 4096)))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (type $later0 (record (field "reason" string) (field "after-ms" (option u32))))
  (export $later "later" (type $later0))
  (type $failure0 (variant (case "retry" $later) (case "fatal" string)))
  (export $failure "failure" (type $failure0))
  (func $f (param "index" (list u8)) (param "events" (list u8))
    (result (result (list u8) (error $failure)))
    (canon lift (core func $i "intercept") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (instance $e (export "failure" (type $failure)) (export "intercept" (func $f)))
  (export "levada:handler/packed-interceptor@0.1.0" (instance $e)))
