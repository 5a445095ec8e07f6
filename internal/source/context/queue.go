package context

import "sync"

// task is a directory to read or, when part is set, a run of a directory's files to look at.
type task struct {
	dir  *directory
	part *part
}

// queue hands tasks to workers, the newest first, so that few directories are open or waiting at a time. It ends when
// nobody works and nothing waits, or with the first error. The zero value is ready; it is safe for concurrent use.
type queue struct {
	mu      sync.Mutex
	wake    sync.Cond
	tasks   []task
	working int
	failed  error
}

func (q *queue) push(tasks ...task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tasks = append(q.tasks, tasks...)
	q.init()
	if len(tasks) > 1 {
		q.wake.Broadcast()
	} else {
		q.wake.Signal()
	}
}

func (q *queue) init() {
	if q.wake.L == nil {
		q.wake.L = &q.mu
	}
}

// next waits for a task; false means that there will be none any more. Every task that was given is ended by done.
func (q *queue) next() (task, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.init()
	for len(q.tasks) == 0 && q.working > 0 && q.failed == nil {
		q.wake.Wait()
	}
	if len(q.tasks) == 0 || q.failed != nil {
		return task{}, false
	}
	last := len(q.tasks) - 1
	t := q.tasks[last]
	q.tasks[last] = task{}
	q.tasks = q.tasks[:last]
	q.working++
	return t, true
}

func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working--
	if q.working == 0 && len(q.tasks) == 0 {
		q.wake.Broadcast()
	}
}

// fail ends the queue; the first error stays. What still waits is given to nobody: drop yields it.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.init()
	if q.failed == nil {
		q.failed = err
	}
	q.wake.Broadcast()
}

func (q *queue) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failed
}

// drop takes back what nobody worked on, after the workers have ended.
func (q *queue) drop() []task {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks
	q.tasks = nil
	return t
}
