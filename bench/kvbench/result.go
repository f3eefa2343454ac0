package main

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// times are those of one run: on the clock, and of the processors for either side, in seconds.
type times struct {
	wall   time.Duration
	server float64
	client float64
}

type result struct {
	times
	ops       int
	latencies []time.Duration
	errors    int
	misses    int
	first     error
}

func collect(workers []worker, t times, ops int) result {
	r := result{times: t, ops: ops}
	for _, w := range workers {
		r.latencies = append(r.latencies, w.latencies...)
		r.errors += w.errors
		r.misses += w.misses
		if r.first == nil {
			r.first = w.first
		}
	}
	sort.Slice(r.latencies, func(a, b int) bool { return r.latencies[a] < r.latencies[b] })
	return r
}

// quantile in milliseconds.
func (r result) quantile(q float64) float64 {
	at := int(q * float64(len(r.latencies)-1))
	return float64(r.latencies[at].Microseconds()) / 1000
}

// perServerSecond is how many operations a second of the server's processor time carried; 0 when
// the server's processes were not given.
func (r result) perServerSecond() float64 {
	if r.server <= 0 {
		return 0
	}
	return float64(r.ops) / r.server
}

var columns = []string{
	"kind", "op", "clients", "size", "ops", "ops/s", "p50 ms", "p99 ms",
	"server cpu s", "ops/server cpu s", "client cpu s", "errors", "misses",
}

func (r result) header(tsv bool) string { return join(columns, tsv) }

func (r result) row(o options) string {
	return join([]string{
		o.kind, o.op, strconv.Itoa(o.clients), strconv.Itoa(o.valueSize), strconv.Itoa(r.ops),
		fmt.Sprintf("%.0f", float64(r.ops)/r.wall.Seconds()),
		fmt.Sprintf("%.3f", r.quantile(.5)), fmt.Sprintf("%.3f", r.quantile(.99)),
		fmt.Sprintf("%.2f", r.server), fmt.Sprintf("%.0f", r.perServerSecond()),
		fmt.Sprintf("%.2f", r.client), strconv.Itoa(r.errors), strconv.Itoa(r.misses),
	}, o.tsv)
}

func join(fields []string, tsv bool) string {
	if tsv {
		return strings.Join(fields, "\t")
	}
	return "| " + strings.Join(fields, " | ") + " |"
}

// serverCPU is the processor time of processes, user and system, in seconds.
func serverCPU(pids string) float64 {
	var total float64
	for _, pid := range strings.FieldsFunc(pids, func(c rune) bool { return c == ',' }) {
		total += processCPU(pid)
	}
	return total
}

// clockTicks a second is what Linux shows to programs, whatever it uses itself.
const clockTicks = 100

func processCPU(pid string) float64 {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	// The name is in brackets and may hold blanks; user and system time are the 12th and 13th after it.
	fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / clockTicks
}

func clientCPU() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	seconds := usage.Utime.Sec + usage.Stime.Sec
	return float64(seconds) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}
