;; F62: loops for ever in a start function
;; ends: refused, the limit `cpu`
@module
(func $begin (loop $ever (br $ever)))
(start $begin)
