package backends

// Degrader is the ability of a store, found with As, that can work in part.
type Degrader interface {
	// Degraded is nil where all of the store works as far as it knows; elsewhere it
	// says what does not, and what to do. It may look, and try again.
	Degraded() error
}

// As finds an ability of s, or of what s wraps (Unwrap): the outermost that has it.
func As[A any](s Store) (a A, ok bool) {
	for {
		if a, ok = s.(A); ok {
			return a, true
		}
		w, wraps := s.(interface{ Unwrap() Store })
		if !wraps {
			return a, false
		}
		s = w.Unwrap()
	}
}
