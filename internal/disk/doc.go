// Package disk reads and writes objects below an open directory without following links, and replaces files of the local root
// as wholes.
package disk
