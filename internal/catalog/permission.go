package catalog

import "larder/internal/fault"

// mayReplace refuses to write over what others still need: an image, a catalog of a larder that knows more, one that counts in another
// place, one that only others can check. What is damaged, and what BuildKit cached, makes room.
//
// An older version that was put back is left alone too. To take its records over would sign again what may have been replaced since,
// and to drop them would lose a catalog that was restored in good faith.
func (w *writer) mayReplace(why *untrusted) error {
	tag, where := w.name.Tag, w.store.Name()
	switch {
	case why.held == other:
		return fault.Errorf(fault.Usage, "the tag %s in %s stands for an image, or something else that larder did not write. It is left alone: "+
			"choose another tag for the cache (--cache-to), or another scope (--cache-scope)", tag, where)
	case why.newer:
		return fault.Errorf(fault.Usage, "%w. It is left alone: use one version of larder for a scope, or another scope (--cache-scope)", why)
	case tag != ScopeTag(w.name.Scope) && scopeTag.MatchString(tag):
		return fault.Errorf(fault.Usage, "the tag %s in %s belongs to the catalog of another scope. It is left alone: choose another tag for the cache (--cache-to)", tag, where)
	case why.elsewhere, why.replay:
		return fault.Errorf(fault.Usage, "%w. It is left alone: choose another tag for the cache (--cache-to) or another scope (--cache-scope), or remove it "+
			"('larder cache prune --all --cache-scope %q' with this --cache)", why, w.name.Scope)
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
