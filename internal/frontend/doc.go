// Package frontend turns a Dockerfile into LLB. It runs BuildKit's own Dockerfile frontend (dockerfile.go) in this process, over
// a gateway client (gateway.go) that asks larder's solver for what the frontend wants to see of a context or image: a
// reference (reference.go) is a definition that is evaluated when somebody reads from it. What comes back is one definition and
// one image config per platform; nothing of it has been built yet.
package frontend
