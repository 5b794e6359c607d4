;; The neighbour: it does nothing.
