;; F65: answers with 12 MiB
;; ends: limit, lifted-bytes
@misdeed
(drop (memory.grow (i32.const 192)))
(global.set $lie-at (i32.const 262144))
(global.set $lie-length (i32.const 0xc00000))
