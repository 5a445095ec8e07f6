package cachemount

import "testing"

// TestSecretStaysInTheDirectory: the file was left out when its step had left; it is still there for later steps, which do not know the secret.
func TestSecretStaysInTheDirectory(t *testing.T) {
	for name, sameBuild := range map[string]bool{"same build": true, "next build": false} {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			m := newMachine(t, d)
			b := m.build()
			release(t, guarded(t, b, Shared))
			b.settle()
			if !sameBuild {
				b.end()
				b = m.build()
			}
			b.step(apart, fine)
			b.end()
			noSecret(t, d, fine)
		})
	}
}
