package balancer

import (
	"strconv"
	"testing"
)

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct {
		name    string
		weights []uint64
	}{{"50-50", []uint64{50, 50}}, {"80-20", []uint64{80, 20}}, {"1-9999", []uint64{1, 9999}}, {"1-1e12", []uint64{1, 1e12}}, {"1-1e12-1e15", []uint64{1, 1e12, 1e15}}} {
		s := NewSequence(NewTable(c.weights), nil, nil)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				s.Next()
			}
		})
		b.Run(c.name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.Next()
				}
			})
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for _, kind := range kinds {
		for _, k := range []int{2, 10, 100} {
			eps := make([]*Endpoint, k)
			for i := range eps {
				eps[i] = NewEndpoint("10.0.0."+strconv.Itoa(i), 80, uint64(1+i%3), 0)
			}
			p := picker(b, kind, eps, nil)
			b.Run(kind+"-"+strconv.Itoa(k), func(b *testing.B) {
				key := uint64(0)
				for b.Loop() {
					key++
					p.Pick(nil, key)
				}
			})
		}
	}
}

func BenchmarkNewTable(b *testing.B) {
	twenty := make([]uint64, 20)
	for i := range twenty {
		twenty[i] = uint64(3000 + 13*i)
	}
	for _, c := range []struct {
		name    string
		weights []uint64
	}{{"80-20", []uint64{80, 20}}, {"1-9999", []uint64{1, 9999}}, {"20-branches-62470-slots", twenty}, {"1-1e12-1e15", []uint64{1, 1e12, 1e15}}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				NewTable(c.weights)
			}
		})
	}
}

func BenchmarkNewSequence(b *testing.B) {
	from := NewSequence(NewTable([]uint64{3, 1, 5}), nil, nil)
	for _, weights := range [][]uint64{{80, 20, 7}, {1, 9999, 50000}, {1, 1e12, 1e15}} {
		t := NewTable(weights)
		b.Run(strconv.FormatUint(t.total, 10)+"-slots", func(b *testing.B) {
			for b.Loop() {
				NewSequence(t, nil, from)
			}
		})
	}
}
