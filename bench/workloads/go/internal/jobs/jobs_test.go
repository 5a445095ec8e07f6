package jobs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

func TestRunnerWaitsForAll(t *testing.T) {
	r := New(zap.NewNop(), 3)
	var now, most, ended atomic.Int64
	for i := range 20 {
		r.Go(t.Context(), "count", func(context.Context) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			ended.Add(1)
			if i%5 == 0 {
				return errors.New("this one fails")
			}
			return nil
		})
	}
	r.Wait()
	if ended.Load() != 20 || most.Load() > 3 {
		t.Errorf("%d ended, %d at once", ended.Load(), most.Load())
	}
}
