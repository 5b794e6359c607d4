;; A source that does what the first byte of its cursor says; from the beginning, `a`.
(component
  (core module $m
    (memory (export "memory") 200)
    (global $heap (mut i32) (i32.const 131072))
    (data (i32.const 64) "busy")
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (global.set $heap (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    ;; The answer is at 0, the next cursor at 128, the body at 132, the event at 160.
    (func $says (param $byte i32) (param $is i32) (result i32)
      (i32.eq (local.get $byte) (local.get $is)))
    (func $body (param $at i32) (param $len i32)
      (i32.store (i32.const 160) (i32.const 0))
      (i32.store (i32.const 164) (i32.const 0))
      (i32.store (i32.const 168) (local.get $at))
      (i32.store (i32.const 172) (local.get $len))
      (i32.store (i32.const 4) (i32.const 160))
      (i32.store (i32.const 8) (i32.const 1)))
    (func $failure (param $case i32)
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store8 (i32.const 4) (local.get $case))
      (i32.store (i32.const 8) (i32.const 64))
      (i32.store (i32.const 12) (i32.const 4)))
    (func (export "poll") (param $given i32) (param $at i32) (param $len i32) (result i32)
      (local $byte i32)
      (local.set $byte (i32.const 97))
      (if (local.get $len) (then (local.set $byte (i32.load8_u (local.get $at)))))
      (global.set $heap (i32.const 131072))
      (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
      (i32.store8 (i32.const 128) (local.get $byte))
      (i32.store8 (i32.const 132) (local.get $byte))
      (i32.store (i32.const 12) (i32.const 128))
      (i32.store (i32.const 16) (i32.const 1))
      (if (i32.and (i32.ge_u (local.get $byte) (i32.const 97))                              ;; a..d
                   (i32.le_u (local.get $byte) (i32.const 100)))
        (then
          (call $body (i32.const 132) (i32.const 1))
          (i32.store8 (i32.const 128) (i32.add (local.get $byte) (i32.const 1)))
          (i32.store8 (i32.const 20) (i32.const 1))))
      (if (call $says (local.get $byte) (i32.const 101))                                    ;; e
        (then (i32.store (i32.const 24) (i32.const 3000))))
      (if (call $says (local.get $byte) (i32.const 109))                                    ;; m
        (then (i32.store8 (i32.const 20) (i32.const 1))))
      (if (call $says (local.get $byte) (i32.const 119))                                    ;; w
        (then (i32.store (i32.const 24) (i32.const -1))))
      (if (call $says (local.get $byte) (i32.const 82))                                     ;; R
        (then
          (call $failure (i32.const 0))
          (i32.store8 (i32.const 16) (i32.const 1))
          (i32.store (i32.const 20) (i32.const 1500))))
      (if (call $says (local.get $byte) (i32.const 70))                                     ;; F
        (then (call $failure (i32.const 1))))
      (if (call $says (local.get $byte) (i32.const 85)) (then unreachable))                 ;; U
      (if (call $says (local.get $byte) (i32.const 76)) (then (loop $ever (br $ever))))     ;; L
      (if (call $says (local.get $byte) (i32.const 67))                                     ;; C
        (then (i32.store (i32.const 16) (i32.const 65537))))
      (if (call $says (local.get $byte) (i32.const 69))                                     ;; E
        (then
          (i32.store (i32.const 4) (i32.const 1048576))
          (i32.store (i32.const 8) (i32.const 10001))))
      (if (call $says (local.get $byte) (i32.const 66))                                     ;; B
        (then (call $body (i32.const 2097152) (i32.const 1048577))))
      (if (call $says (local.get $byte) (i32.const 71))                                     ;; G
        (then (call $body (i32.const 2097152) (i32.const 9437184))))
      (if (call $says (local.get $byte) (i32.const 79))                                     ;; O
        (then (i32.store (i32.const 12) (i32.const -2))))
      (i32.const 0)))
  (core instance $i (instantiate $m))
  (type $header0 (record (field "name" string) (field "value" string)))
  (export $header "header" (type $header0))
  (type $event0 (record (field "headers" (list $header)) (field "body" (list u8))))
  (export $event "event" (type $event0))
  (type $later0 (record (field "reason" string) (field "after-ms" (option u32))))
  (export $later "later" (type $later0))
  (type $failure0 (variant (case "retry" $later) (case "fatal" string)))
  (export $failure "failure" (type $failure0))
  (type $polled0 (record (field "events" (list $event)) (field "cursor" (list u8))
    (field "more" bool) (field "wait-ms" u32)))
  (export $polled "polled" (type $polled0))
  (func $f (param "cursor" (option (list u8))) (result (result $polled (error $failure)))
    (canon lift (core func $i "poll") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (instance $e (export "event" (type $event)) (export "failure" (type $failure))
    (export "polled" (type $polled)) (export "poll" (func $f)))
  (export "levada:handler/source@0.1.0" (instance $e)))
