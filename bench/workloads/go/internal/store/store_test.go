package store

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestEntryAsJSON(t *testing.T) {
	b, err := json.Marshal(Entry{ID: uuid.Nil, Amount: -5, Text: "refund"})
	if err != nil || !strings.Contains(string(b), `"amount":-5,"text":"refund"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestOpen(t *testing.T) {
	db, err := Open(t.Context(), "postgres://ledger@localhost:1/ledger")
	if err != nil {
		t.Fatalf("a server that is not there yet: %v", err)
	}
	db.Close()
	if _, err := Open(t.Context(), "postgres://localhost:port/"); err == nil {
		t.Error("a port that is no number is no error")
	}
}
