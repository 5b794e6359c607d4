;; F63: wants a table of ten million elements at its start
;; ends: refused, table-elements
@module
(table 10000000 funcref)
