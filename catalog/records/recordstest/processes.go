package recordstest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// workerEnv holds a job where the test's program is run as a worker.
const workerEnv = "GLANCED_RECORDS_WORKER"

// job is what one of several processes does with one database.
type job struct {
	Where  string // for Suite.New's companion, Worker's open
	Task   string
	Worker int
	IDs    []string // images of the task
	Edges  []records.Parent
}

// result is what it says of it.
type result struct {
	Done []bool // by image, or for each try
	Errs []string
}

// Worker is for the beginning of a TestMain: where the test's program was started by the
// suite to race with another process, it does that, and ends. open opens the database
// that Suite.New spoke of.
func Worker(open func(where string) (records.DB, error)) {
	text := os.Getenv(workerEnv)
	if text == "" {
		return
	}
	if err := work(text, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func work(text string, open func(string) (records.DB, error)) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	db, err := open(j.Where)
	if err != nil {
		return err
	}
	defer db.Close()
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var r result
	s := rules.New(db, rules.Options{})
	for i := range tasks[j.Task].tries(j) {
		err := tasks[j.Task].try(s, j, i)
		r.Done = append(r.Done, err == nil)
		if err != nil && !errors.Is(err, tasks[j.Task].mayFail) && !errors.Is(err, tasks[j.Task].orFail) {
			r.Errs = append(r.Errs, err.Error())
		}
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// task is what two processes do at once, try after try.
type task struct {
	tries           func(job) int
	try             func(s *rules.Records, j job, i int) error
	mayFail, orFail error
}

func times(n int) func(job) int { return func(job) int { return n } }

var tasks = map[string]task{
	"create":  {times(40), tryCreate, records.ErrQuota, records.ErrQuota},
	"reserve": {times(40), tryReserve, records.ErrQuota, records.ErrQuota},
	"edge":    {func(j job) int { return len(j.Edges) }, tryEdge, records.ErrParent, records.ErrInUse},
	"take":    {func(j job) int { return len(j.IDs) }, tryTake, records.ErrLeased, records.ErrLeased},
	"rename":  {times(100), tryRename, nil, nil},
}

func tryCreate(s *rules.Records, _ job, _ int) error {
	_, err := s.Create(context.Background(), fill(records.Image{Owner: "p"}))
	return err
}

func tryReserve(s *rules.Records, j job, i int) error {
	_, err := s.Update(context.Background(), j.IDs[(i+j.Worker)%len(j.IDs)], func(img *records.Image) error { img.Reserved += 3 * mib; return nil })
	return err
}

// tryEdge has one process make the edge, and the other remove the parent.
func tryEdge(s *rules.Records, j job, i int) error {
	_, err := s.Update(context.Background(), []string{j.IDs[i], j.Edges[i].ID}[j.Worker], func(img *records.Image) error {
		if j.Worker == 0 {
			img.Status, img.Parent = records.Active, &j.Edges[i]
		} else {
			img.Status, img.Parent = records.Deleted, nil
		}
		return nil
	})
	return err
}

func tryRename(s *rules.Records, j job, i int) error {
	_, err := s.Update(context.Background(), j.IDs[j.Worker], func(img *records.Image) error { img.Name = ptr(fmt.Sprint(i)); return nil })
	return err
}

// race has two processes do a job at once, and is what they say. meanwhile is run while
// they do, until over is closed.
func race(t *testing.T, j job, meanwhile func(over <-chan struct{})) [2]result {
	t.Helper()
	type process struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out *bufio.Reader
	}
	var all [2]process
	for w := range all {
		j.Worker = w
		text, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all[w] = process{cmd, in, bufio.NewReader(out)}
	}
	for _, p := range all {
		if line, err := p.out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("a worker said %q, %v", line, err)
		}
	}
	over, looked := make(chan struct{}), make(chan struct{})
	go func() { defer close(looked); meanwhile(over) }()
	for _, p := range all {
		io.WriteString(p.in, "go\n")
	}
	var results [2]result
	for w, p := range all {
		err := json.NewDecoder(p.out).Decode(&results[w])
		if err = errors.Join(err, p.cmd.Wait()); err != nil {
			t.Error(err)
		}
		for _, text := range results[w].Errs {
			t.Errorf("process %d: %s", w, text)
		}
	}
	close(over)
	<-looked
	return results
}

func count(results [2]result) (n int64) {
	for _, r := range results {
		for _, done := range r.Done {
			if done {
				n++
			}
		}
	}
	return n
}

func testProcessesShareQuotas(t *testing.T, s *rules.Records, where string) {
	if err := s.SetQuota(t.Context(), "p", &records.Quota{ImageCountTotal: 50, ImageSizeTotal: 100}); err != nil {
		t.Fatal(err)
	}
	within := func(over <-chan struct{}) {
		for {
			if u, err := s.Usage(t.Context(), "p"); err != nil || u.ImageCount > 50 || u.ImageBytes > 100*mib {
				t.Errorf("usage %+v, %v; the limits are 50 images, 100 MiB", u, err)
			}
			select {
			case <-over:
				return
			default:
			}
		}
	}
	if n := count(race(t, job{Where: where, Task: "create"}, within)); n != 50 {
		t.Errorf("%d were made, 50 are allowed", n)
	}
	all, err := s.List(t.Context(), records.Query{Scope: records.Everything})
	if err != nil || len(all) != 50 {
		t.Fatalf("%d images, %v", len(all), err)
	}
	j := job{Where: where, Task: "reserve"}
	for _, img := range all[:5] {
		j.IDs = append(j.IDs, img.ID)
	}
	if n := count(race(t, j, within)); n != 33 {
		t.Errorf("%d times 3 MiB were reserved, 33 fit", n)
	}
	if u, err := s.Usage(t.Context(), "p"); err != nil || u != (records.Usage{ImageCount: 50, ImageBytes: 99 * mib}) {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func testProcessesShareParents(t *testing.T, s *rules.Records, where string) {
	j := job{Where: where, Task: "edge"}
	for range 40 {
		_, edge := parentOf(t, s)
		j.Edges = append(j.Edges, *edge)
		j.IDs = append(j.IDs, create(t, s, records.Image{Status: records.Saving}).ID)
	}
	r := race(t, j, func(<-chan struct{}) {})
	for i := range j.Edges {
		adopted, removed := r[0].Done[i], r[1].Done[i]
		if adopted == removed {
			t.Errorf("child %v, deletion %v: one must win, one lose", adopted, removed)
		}
		parent, child := get(t, s, j.Edges[i].ID), get(t, s, j.IDs[i])
		if child.Parent != nil && parent.Status == records.Deleted {
			t.Error("a child stands on a deleted parent")
		}
	}
}

// testProcessesShareTheLog follows the log while two processes write it: what it saw is
// what is there in the end, so nothing came in below what it had seen.
func testProcessesShareTheLog(t *testing.T, s *rules.Records, where string) {
	j := job{Where: where, Task: "rename", IDs: []string{create(t, s, records.Image{}).ID, create(t, s, records.Image{}).ID}}
	start, err := s.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var seen []records.Change
	follow := func() {
		since := start
		if len(seen) > 0 {
			since = seen[len(seen)-1].Seq
		}
		more, err := s.Changes(t.Context(), since, 1000)
		if err != nil {
			t.Error(err)
		}
		seen = append(seen, more...)
	}
	race(t, j, func(over <-chan struct{}) {
		for {
			follow()
			select {
			case <-over:
				return
			default:
			}
		}
	})
	follow()
	all, err := s.Changes(t.Context(), start, 1000)
	if err != nil || len(all) != 200 || !slices.Equal(seen, all) {
		t.Errorf("%d changes were seen, there are %d, %v; 200 were made", len(seen), len(all), err)
	}
}
