// Package jobs runs work beside the requests.
package jobs

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

var done = promauto.NewCounterVec(prometheus.CounterOpts{Name: "ledger_jobs_total"}, []string{"result"})

// Runner bounds how many jobs run at once.
type Runner struct {
	log   *zap.Logger
	group errgroup.Group
}

// New makes a runner of n workers.
func New(log *zap.Logger, n int) *Runner {
	r := &Runner{log: log}
	r.group.SetLimit(n)
	return r
}

// Go runs f, waiting for a free worker.
func (r *Runner) Go(ctx context.Context, name string, f func(context.Context) error) {
	r.group.Go(func() error {
		err := f(ctx)
		if err != nil {
			done.WithLabelValues("failed").Inc()
			r.log.Error("job", zap.String("name", name), zap.Error(err))
			return nil
		}
		done.WithLabelValues("ok").Inc()
		return nil
	})
}

// Wait waits for all jobs.
func (r *Runner) Wait() { _ = r.group.Wait() }
