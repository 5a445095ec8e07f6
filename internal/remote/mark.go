package remote

import "errors"

// ErrFinal marks what fails in the same way however often it is tried: Retry does not repeat it.
var ErrFinal = errors.New("trying again does not help")

// Mark gives err a mark, one of this package's errors, that errors.Is finds. Its text stays as it is; nil stays nil.
func Mark(err, mark error) error {
	if err == nil {
		return nil
	}
	return &marked{error: err, mark: mark}
}

type marked struct {
	error
	mark error
}

func (m *marked) Unwrap() []error { return []error{m.error, m.mark} }
