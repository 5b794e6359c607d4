;; F63: has 200 memories
;; ends: refused, memories
@module
@200 (memory 0)
