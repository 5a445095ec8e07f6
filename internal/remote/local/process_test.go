package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"larder/internal/remote"
	"larder/internal/remote/storetest"
)

// TestSeveralProcesses counts up one document in processes of their own, one of which is killed again and again.
func TestSeveralProcesses(t *testing.T) {
	if dir := os.Getenv("LARDER_TEST_COUNT_IN"); dir != "" {
		countUp(t, dir)
		return
	}
	s := open(t)
	storetest.Put(t, s, []byte("{}"))
	run := func(n int) *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSeveralProcesses$")
		cmd.Env = append(os.Environ(), "LARDER_TEST_COUNT_IN="+s.dir, fmt.Sprintf("LARDER_TEST_COUNT=%d", n))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	const processes, each = 3, 15
	var running []*exec.Cmd
	for range processes {
		running = append(running, run(each))
	}
	for range 3 {
		victim := run(1_000_000)
		time.Sleep(100 * time.Millisecond)
		victim.Process.Kill()
		victim.Wait()
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	doc, err := s.Manifest(t.Context(), "counter")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{} // by process
	for _, w := range strings.Fields(storetest.Note(t, doc)) {
		got[w]++
	}
	whole := 0
	for _, n := range got {
		if n == each {
			whole++
		}
	}
	if whole < processes {
		t.Errorf("%v", got)
	}
}

// countUp appends its process id to the document, as often as it is told to.
func countUp(t *testing.T, dir string) {
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(os.Getenv("LARDER_TEST_COUNT"))
	if err != nil {
		t.Fatal(err)
	}
	config := storetest.Describe([]byte("{}"))
	for n > 0 {
		note := ""
		doc, err := s.Manifest(t.Context(), "counter")
		if err == nil {
			note = storetest.Note(t, doc) + " "
		} else if errors.Is(err, remote.ErrNotFound) {
			doc.Version = remote.Absent
		} else {
			t.Fatal(err)
		}
		_, err = s.PutManifest(t.Context(), "counter", storetest.Document(note+strconv.Itoa(os.Getpid()), config), doc.Version)
		if err == nil {
			n--
		} else if !errors.Is(err, remote.ErrConflict) {
			t.Fatal(err)
		}
	}
}
