// Package solve turns LLB into states: it decides which steps have to be done, in what order, and does each once.
//
// A build makes one Solver and asks it for the states that it wants, as often and as concurrently as it likes (Evaluate).
// All requests share one graph of vertices. One goroutine owns that graph (graph.go); it starts a worker for each
// vertex whose inputs are there, and hears from it when it has ended. Nothing else writes to the graph, so a vertex's status
// says all about it:
//
//	idle -> waiting -> working -> done
//	          |           |-----> failed
//	          |<----------|  (nobody wants it any more)
//
// What a worker does with a vertex is in steps.go: look its key up, and where that is no use, do the work. Nothing is
// fetched or unpacked to find out what has to be done: states know their identities from metadata alone.
package solve
