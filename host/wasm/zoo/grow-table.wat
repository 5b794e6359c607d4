;; F63: grows a table for ever
;; ends: limit, table-elements
@module
(table $bomb 0 funcref)
@misdeed
(loop $ever (drop (table.grow $bomb (ref.null func) (i32.const 4096))) (br $ever))
