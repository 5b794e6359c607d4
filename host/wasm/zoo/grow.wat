;; F63: grows its memory for ever
;; ends: limit, memory
@misdeed
(loop $ever (drop (memory.grow (i32.const 16))) (br $ever))
