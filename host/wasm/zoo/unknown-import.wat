;; F72: asks for an interface that no host has
;; ends: refused, `corp:backdoor/shell@1.0.0`
@imports
(import "corp:backdoor/shell@1.0.0" (instance))
