package redis

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"headgate/proxy/phase"
	"headgate/proxy/phase/limit"
)

// Names are the names that keys have in the Redis: the same on every gateway that has the same configuration.
type Names struct {
	prefix []byte
	tagged bool
}

// Names returns those for the configuration conf in the document owner (contract section 4.2): the key of the document, the sum of the
// configuration, the key of the request. How the Redis is reached is no part of the sum: it may differ between gateways, and a sum of
// passwords is not to be told. tagged puts braces around the names of what needs several keys, for a cluster keeps those together then.
func (p *Pool) Names(owner string, conf []byte, tagged bool) (Names, error) {
	doc, err := limit.Decode(conf)
	if err != nil {
		return Names{}, err
	}
	for name := range doc {
		if name == "_meta" || strings.HasPrefix(name, "redis_") || strings.HasPrefix(name, "sentinel_") {
			delete(doc, name)
		}
	}
	stable, err := json.Marshal(doc)
	return p.names("/apisix/"+owner+":"+strconv.FormatUint(uint64(crc32.ChecksumIEEE(stable)), 10), tagged), err
}

// NamesOfGroup returns the names that everything in a group shares.
func (p *Pool) NamesOfGroup(group string, tagged bool) Names {
	// A colon in it would let the keys of one group be those of another.
	return p.names(strings.NewReplacer("%", "%25", ":", "%3A").Replace(group), tagged)
}

// Part returns the names of one of several limits.
func (n Names) Part(i int) Names {
	return Names{append(bytes.Clone(n.prefix), strconv.Itoa(i)+":"...), n.tagged}
}

func (p *Pool) names(identity string, tagged bool) Names {
	brace := ""
	if tagged {
		brace = "{"
	}
	return Names{[]byte(brace + p.prefix + identity + ":"), tagged}
}

// maxKey bounds the part of a name that the request says, in bytes. What is longer is named by its hash.
const maxKey = 256

// Append appends the name of the key k of x to dst.
func (n *Names) Append(dst []byte, x *phase.Exchange, k *limit.Key) []byte {
	dst = append(dst, n.prefix...)
	start := len(dst)
	if dst = k.AppendOrClient(dst, x); len(dst)-start > maxKey {
		sum := sha256.Sum256(dst[start:])
		dst = hex.AppendEncode(append(dst[:start], "sha256:"...), sum[:])
	}
	if n.tagged {
		dst = append(dst, '}')
	}
	return dst
}

// Window counts a request of key, unless the limit is reached.
func (s *Server) Window(key []byte, shape limit.Shape) (q limit.Quota, err error) {
	if shape.Sliding {
		length := shape.Window / 1000
		r, err := s.do(s.newCall(s.pool.scripts.sliding, key, length, shape.Count))
		if err != nil {
			return q, err
		}
		return slidingQuota(shape, r[0] == 1, r[1], r[2], r[3]*1000), nil
	}
	r, err := s.do(s.newCall(s.pool.scripts.fixed, key, 1, shape.Window/int64(time.Millisecond)))
	if err != nil {
		return q, err
	}
	return limit.Quota{OK: r[0] <= shape.Count, Remaining: max(shape.Count-r[0], 0), Reset: r[1] * int64(time.Millisecond)}, nil
}

// slidingQuota is what becomes of a request when used came before it in the window, which ends in rest ns, and last in the window before.
func slidingQuota(s limit.Shape, ok bool, used, last, rest int64) limit.Quota {
	if ok {
		weight := float64(last) * float64(rest) / float64(s.Window)
		return limit.Quota{OK: true, Remaining: max(int64(float64(s.Count-used-1)-weight), 0), Reset: rest}
	}
	if used < s.Count && last > 0 { // the window before will have lost enough weight
		free := float64(s.Count-used) / float64(last) * float64(s.Window)
		rest = max(rest-int64(free), 1)
	}
	return limit.Quota{Reset: rest}
}

// Bucket pours a request of key into its bucket. wait is how long it takes until the request is no longer ahead of the rate, in
// nanoseconds.
func (s *Server) Bucket(key []byte, r limit.Rate) (wait int64, ok bool, err error) {
	reply, err := s.do(s.newCall(s.pool.scripts.pour, key, float64(r.Interval)/1000, r.Burst))
	return max(reply[0], 0) * 1000, reply[0] >= 0, err
}

// Visit is a request that was counted as being in flight.
type Visit struct {
	server *Server
	key    []byte
	token  string
}

// Enter counts a request of key as being in flight, unless most are: then v is nil. n is the number of requests with it. ttl in
// milliseconds is how long it counts if it never leaves.
func (s *Server) Enter(key []byte, most, ttl int64) (v *Visit, n int64, err error) {
	v = &Visit{s, bytes.Clone(key), token()}
	c := s.newCall(s.pool.scripts.enter, v.key, v.token, most, ttl)
	c.undo = v.Leave
	switch r, err := s.do(c); {
	case err == nil && r[0] == 1:
		return v, r[1], nil
	case err == nil:
		return nil, r[1], nil
	case errors.Is(err, ErrAway), errors.Is(err, errBusy), errors.Is(err, errSlow): // was not sent, or the worker looks after it
		return nil, 0, err
	default:
		v.Leave() // it may have been counted
		return nil, 0, err
	}
}

// Leave ends what Enter began. It waits for nothing; should the server be away it is told later.
func (v *Visit) Leave() {
	v.server.post(&call{script: v.server.pool.scripts.leave, key: v.key, args: []any{v.token}})
}

// token returns what no other request of any gateway has.
func token() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return string(b[:])
}
