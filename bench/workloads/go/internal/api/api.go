// Package api answers HTTP and gRPC.
package api

import (
	"context"
	"encoding/json"
	"net"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/ledger/internal/jobs"
	"example.com/ledger/internal/store"
)

// Server is both servers.
type Server struct {
	log  *zap.Logger
	db   *store.DB
	jobs *jobs.Runner
}

// New makes a server.
func New(log *zap.Logger, db *store.DB, runner *jobs.Runner) *Server {
	return &Server{log, db, runner}
}

func (s *Server) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Recoverer)
	r.Handle("/metrics", promhttp.Handler())
	r.Get("/sum", s.sum)
	r.Post("/entries", s.add)
	return r
}

func (s *Server) sum(w http.ResponseWriter, r *http.Request) {
	n, err := s.db.Sum(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]int64{"sum": n})
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Amount int64
		Text   string
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.jobs.Go(context.WithoutCancel(r.Context()), "add", func(ctx context.Context) error {
		_, err := s.db.Add(ctx, in.Amount, in.Text)
		return err
	})
	w.WriteHeader(http.StatusAccepted)
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, httpAddr, grpcAddr string) error {
	g, ctx := errgroup.WithContext(ctx)
	web := &http.Server{Addr: httpAddr, Handler: s.routes()}
	rpc := grpc.NewServer()
	healthpb.RegisterHealthServer(rpc, health.NewServer())
	g.Go(web.ListenAndServe)
	g.Go(func() error {
		l, err := net.Listen("tcp", grpcAddr)
		if err != nil {
			return err
		}
		return rpc.Serve(l)
	})
	g.Go(func() error {
		<-ctx.Done()
		rpc.Stop()
		return web.Close()
	})
	return g.Wait()
}
