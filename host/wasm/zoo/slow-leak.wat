;; F78: leaks 64 KiB a call
;; calls: 600
;; ends: harmless, levada_handler_retirements_total reason="memory"
@misdeed
(local.set $a (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))
(memory.fill (local.get $a) (i32.const 0xaa) (i32.const 65536))
