// Package store keeps entries in PostgreSQL.
package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Entry is one line of the ledger.
type Entry struct {
	ID     uuid.UUID `json:"id"`
	Time   time.Time `json:"time"`
	Amount int64     `json:"amount"`
	Text   string    `json:"text"`
}

// DB is a pool of connections.
type DB struct{ pool *pgxpool.Pool }

// Open connects lazily.
func Open(ctx context.Context, url string) (*DB, error) {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	return &DB{pool}, nil
}

// Close ends the pool.
func (db *DB) Close() { db.pool.Close() }

// Add inserts an entry under a new ID.
func (db *DB) Add(ctx context.Context, amount int64, text string) (Entry, error) {
	e := Entry{ID: uuid.New(), Time: time.Now(), Amount: amount, Text: text}
	_, err := db.pool.Exec(ctx, `insert into entries (id, time, amount, text) values ($1, $2, $3, $4)`, e.ID, e.Time, e.Amount, e.Text)
	return e, err
}

// Sum adds all amounts up.
func (db *DB) Sum(ctx context.Context) (int64, error) {
	var sum int64
	err := db.pool.QueryRow(ctx, `select coalesce(sum(amount), 0) from entries`).Scan(&sum)
	return sum, err
}
