package cachemount

import (
	"strings"
	"testing"
)

const secretValue = "s3cr3t-token-value"

// noSecret checks that an empty machine gets what it should, and nothing with the secret in it.
func noSecret(t *testing.T, d *depot, want map[string]string) {
	t.Helper()
	got := d.restored(apart)
	for name, data := range got {
		if strings.Contains(name+data, secretValue) {
			t.Errorf("the remote cache has the secret in %s", name)
			delete(got, name)
		}
	}
	wants(t, "an empty machine", got, want)
}

var (
	leak = map[string]string{"config": "token=" + secretValue}
	fine = map[string]string{"fine": "nothing to see"}
)

// guarded gives a mount to a step that has the secret.
func guarded(t *testing.T, b *building, sharing Sharing) Mount {
	t.Helper()
	m := acquire(t, b, apart, sharing)
	must(t, m.Guard([][]byte{[]byte(secretValue)}))
	write(t, m.Dir(), leak)
	return m
}

// TestSecretOfASharedMount: two steps have it, and the one with the secret leaves first.
func TestSecretOfASharedMount(t *testing.T) {
	d := newDepot(t)
	b := newMachine(t, d).build()
	one := guarded(t, b, Shared)
	two := acquire(t, b, apart, Shared)
	release(t, one)
	b.settle()
	write(t, two.Dir(), fine)
	release(t, two)
	b.end()
	noSecret(t, d, fine)
}

// TestSecretOfAKilledStep: the next one does not know it.
func TestSecretOfAKilledStep(t *testing.T) {
	d := newDepot(t)
	b := newMachine(t, d).build()
	must(t, guarded(t, b, Shared).Release(false))
	b.settle()
	b.step(apart, fine)
	b.end()
	noSecret(t, d, fine)
}

// TestSecretOfAnotherProcess: it ended before what a step with a secret left could be searched, and nobody knows the secret any more. The directory
// is begun anew.
func TestSecretOfAnotherProcess(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, m Mount){
		"killed process": func(t *testing.T, m Mount) { must(t, m.(*saved).lock.Unlock()) },
		"killed step":    func(t *testing.T, m Mount) { must(t, m.Release(false)) },
		"never saved":    func(t *testing.T, m Mount) { must(t, m.(*saved).slot.Release(true)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			m := newMachine(t, d)
			m.once(apart, files(apart, "base", 3))
			b := m.build()
			leave(t, guarded(t, b, Shared))
			b.kill()

			b = m.build()
			mount := acquire(t, b, apart, Shared)
			wants(t, "the next step", filesIn(t, mount.Dir()), files(apart, "base", 3))
			write(t, mount.Dir(), fine)
			release(t, mount)
			b.end()
			want := files(apart, "base", 3)
			want["fine"] = fine["fine"]
			noSecret(t, d, want)
		})
	}
}

// TestSecretOfAProcessBeside: another build's step with a secret has the directory at the same time.
func TestSecretOfAProcessBeside(t *testing.T) {
	for name, whole := range map[string]bool{"whole": true, "killed": false} {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			m := newMachine(t, d)
			one, two := m.build(), m.build()
			a := guarded(t, one, Shared)
			b := acquire(t, two, apart, Shared)
			if a.Dir() != b.Dir() {
				t.Fatal("they do not share it")
			}
			must(t, a.Release(whole))
			one.end()
			write(t, b.Dir(), fine)
			release(t, b)
			two.end()
			if got := d.restored(apart); len(got) > 0 {
				noSecret(t, d, fine)
			}
		})
	}
}
