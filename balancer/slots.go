package balancer

// buildSlots lays out one period by Tijdeman's solution of the chairman
// assignment problem (R. Tijdeman, "The chairman assignment problem", Discrete
// Mathematics 32, 1980), which keeps every branch within 1 - 1/(2k-2) of its
// quota after every pick, the best possible bound for k branches.
//
// In scheduling terms: with d = 1/(2k-2), pick number j of a branch of weight
// w may happen from time (j-1+d)*W/w on (earlier would be more than 1-d ahead)
// and must happen by floor((j-d)*W/w) + 1 (later would be more than 1-d
// behind). Serving the earliest deadline among the released branches meets all
// deadlines, and some branch is always released, because the backlogs before a
// pick sum to 1 and k*d <= 1.
//
// Everything is scaled by 2k-2, so it is exact in integers: the largest
// product is 2^16 * 2^17 * 2^16.
func buildSlots[T uint8 | uint16](weights []uint64, positive int) []T {
	var total uint64
	for _, w := range weights {
		total += w
	}
	if positive == 1 {
		// Two slots, because the reciprocal of 1 does not fit 64 bits.
		for i, w := range weights {
			if w > 0 {
				return []T{T(i), T(i)}
			}
		}
	}

	if positive == 2 {
		return buildPair[T](weights, total)
	}

	scale := uint64(2*positive - 2)
	released := func(w, j uint64) uint64 { // first time, from 1, of pick j, from 1
		return ((j-1)*scale*total + total + scale*w - 1) / (scale * w)
	}
	deadline := func(w, j uint64) uint64 {
		return (j*scale-1)*total/(scale*w) + 1
	}

	// waiting[time] heads a list, linked by next, of the branches that are
	// released then. Every branch is in one list or in the heap, never both.
	const none = -1
	waiting := make([]int32, total+1)
	for i := range waiting {
		waiting[i] = none
	}
	next := make([]int32, len(weights))
	picks := make([]uint64, len(weights)) // picks so far
	wait := func(branch int, now uint64) {
		at := max(released(weights[branch], picks[branch]+1), now)
		next[branch] = waiting[at]
		waiting[at] = int32(branch)
	}
	for i, w := range weights {
		if w > 0 {
			wait(i, 1)
		}
	}

	slots := make([]T, total)
	ready := make(minHeap, 0, positive)
	for now := uint64(1); now <= total; now++ {
		for b := waiting[now]; b != none; b = next[b] {
			ready.push(deadline(weights[b], picks[b]+1)<<32 | uint64(b))
		}
		branch := int(uint32(ready.pop()))
		slots[now-1] = T(branch)
		picks[branch]++
		if picks[branch] < weights[branch] {
			wait(branch, now+1)
		}
	}
	return slots
}

// buildPair is buildSlots for two branches, where the schedule is plain
// rounding: after n picks the heavier branch has had n*w/total to the nearest
// integer.
func buildPair[T uint8 | uint16](weights []uint64, total uint64) []T {
	heavy, light := -1, -1
	for i, w := range weights {
		switch {
		case w == 0:
		case heavy < 0:
			heavy = i
		case w > weights[heavy]:
			heavy, light = i, heavy
		default:
			light = i
		}
	}
	slots := make([]T, total)
	rest := total / 2
	for n := range slots {
		if rest += weights[heavy]; rest >= total {
			rest -= total
			slots[n] = T(heavy)
		} else {
			slots[n] = T(light)
		}
	}
	return slots
}

// minHeap is a binary heap of deadline<<32 | branch: equal deadlines go to the
// lower branch, so a table depends on nothing but its weights.
type minHeap []uint64

func (h *minHeap) push(v uint64) {
	a := append(*h, v)
	i := len(a) - 1
	for i > 0 {
		up := (i - 1) / 2
		if a[up] <= v {
			break
		}
		a[i] = a[up]
		i = up
	}
	a[i] = v
	*h = a
}

// pop removes the smallest value; the heap must not be empty.
func (h *minHeap) pop() uint64 {
	a := *h
	top, last := a[0], a[len(a)-1]
	a = a[:len(a)-1]
	for i := 0; len(a) > 0; {
		down := 2*i + 1
		if down+1 < len(a) && a[down+1] < a[down] {
			down++
		}
		if down >= len(a) || a[down] >= last {
			a[i] = last
			break
		}
		a[i] = a[down]
		i = down
	}
	*h = a
	return top
}
