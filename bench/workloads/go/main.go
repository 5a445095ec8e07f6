// Command ledger is the bench's Go service: small, but with the dependencies that such services have.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"example.com/ledger/internal/api"
	"example.com/ledger/internal/config"
	"example.com/ledger/internal/jobs"
	"example.com/ledger/internal/store"
)

// revision is what the bench's "one source line" changes.
const revision = "revision 0"

func main() {
	root := &cobra.Command{Use: "ledger", Version: revision}
	path := root.PersistentFlags().String("config", "", "settings file")
	root.AddCommand(&cobra.Command{Use: "serve", RunE: func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), *path)
	}})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, path string) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, cfg.Database)
	if err != nil {
		return err
	}
	defer db.Close()
	runner := jobs.New(log, cfg.Workers)
	defer runner.Wait()
	return api.New(log, db, runner).Serve(ctx, cfg.HTTP, cfg.GRPC)
}
