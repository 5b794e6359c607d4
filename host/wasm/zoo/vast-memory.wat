;; F63: wants 4 GiB of memory at its start
;; ends: refused, the limit `memory`
@module
(memory $vast 65536)
