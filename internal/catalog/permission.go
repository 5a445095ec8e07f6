package catalog

import "larder/internal/fault"

// mayReplace refuses to write over a catalog of a larder that knows more, and over one that only others can check.
func (w *writer) mayReplace(why *untrusted) error {
	if why.newer {
		return fault.Errorf(fault.Usage, "%w. It is left alone: use one version of larder for a scope, or another scope (--cache-scope)", why)
	}
	return w.mayWrite(why.signed)
}

// mayWrite refuses what nobody would believe who checks signatures: it would take their catalog away.
func (w *writer) mayWrite(signed bool) error {
	keys := w.opt.Keys
	switch {
	case keys.Sign != nil:
		return nil
	case len(keys.Verify) > 0:
		return fault.Errorf(fault.Usage, "the catalog of scope %q in %s is not written: without a key for signing nobody who verifies it would believe it; "+
			"give --cache-sign-key, or --cache-read-only", w.name.Scope, w.store.Name())
	case signed:
		return fault.Errorf(fault.Usage, "the catalog of scope %q in %s is signed and this build has no key to sign with, so it is left alone; "+
			"give --cache-sign-key, --cache-read-only or another --cache-scope", w.name.Scope, w.store.Name())
	}
	return nil
}
