package s3

import (
	"testing"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

func TestContract(t *testing.T) {
	t.Run("real", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) remote.Store { return open(t, bucket(t)) })
	})
	for _, conditions := range []string{"honoured", "ignored", "refused", "half"} {
		t.Run(conditions, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) remote.Store {
				s := open(t, (&fake{conditions: conditions, page: 3}).serve(t, nil))
				if got, want := s.Conditional(), conditions == "honoured"; got != want {
					t.Fatalf("conditional: %v", got)
				}
				return remote.Wrap(s, remote.Options{})
			})
		})
	}
}
