// Package cachemount keeps the directories behind RUN --mount=type=cache between builds on this machine (Local), and beyond it in remote
// caches (Saved).
//
//	cachemounts/<hex>/<n>/data  the directory that steps write to
//	cachemounts/<hex>/<n>       is itself locked: shared by the users of sharing=shared, alone by the others
//	cachemounts/<hex>/<n>/key   what it is, for people; its time is that of the last use
//	cachemounts/<hex>/<n>/...   what is known of data, see docs/formats.md
//
// <hex> is the hash of a Key, <n> counts from 0. One directory per key is the rule; a second one appears where
// sharing=private, or a mix of modes, finds the first one taken.
package cachemount
