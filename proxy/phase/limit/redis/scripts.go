package redis

import (
	"crypto/sha1" // the name under which a server keeps a script
	"encoding/hex"
)

// script is a program that a Redis runs as one step. Every script has one key; times are those of the server, so that gateways whose
// clocks differ count in the same windows.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// scripts are immutable.
type scripts struct{ fixed, sliding, slide, pour, enter, leave, probe *script }

func newScripts() *scripts {
	return &scripts{
		fixed:   newScript(fixedScript),
		sliding: newScript(slidingScript),
		slide:   newScript(slideScript),
		pour:    newScript(pourScript),
		enter:   newScript(enterScript),
		leave:   newScript(leaveScript),
		probe:   newScript(probeScript),
	}
}

// all returns what requests use.
func (s *scripts) all() []*script {
	return []*script{s.fixed, s.sliding, s.slide, s.pour, s.enter, s.leave}
}

const (
	// fixedScript counts ARGV[1] requests in a window of ARGV[2] ms that begins with the first. It returns the number of requests in the
	// window and the ms until it ends.
	fixedScript = `local used = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = tonumber(ARGV[2])
  redis.call('PEXPIRE', KEYS[1], left)
end
return {used, left}`

	// slidingScript counts a request unless the window of ARGV[1] us and the share of the one before that still counts have reached ARGV[2].
	// It returns whether it did, the number of requests in the window without this one and in the window before, and the us until the
	// window ends.
	slidingScript = `local t = redis.call('TIME')
local now, length, limit = t[1] * 1000000 + t[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local id = math.floor(now / length)
local rest = (id + 1) * length - now
local this = KEYS[1] .. string.format('.%.0f.counter', id)
local used = tonumber(redis.call('GET', this) or 0)
local last = math.min(tonumber(redis.call('GET', KEYS[1] .. string.format('.%.0f.counter', id - 1)) or 0), limit)
if used + last * rest / length >= limit then
  return {0, used, last, rest}
end
redis.call('INCRBY', this, 1)
if used == 0 then
  redis.call('PEXPIRE', this, math.ceil(length / 500))
end
return {1, used, last, rest}`

	// slideScript adds ARGV[2] requests, all of which have passed, to the window number ARGV[1], which is kept for ARGV[3] ms. It returns
	// the numbers of requests in that window and in the one before.
	slideScript = `local this = KEYS[1] .. string.format('.%.0f.counter', ARGV[1])
local used = redis.call('INCRBY', this, ARGV[2])
redis.call('PEXPIRE', this, ARGV[3])
return {used, tonumber(redis.call('GET', KEYS[1] .. string.format('.%.0f.counter', ARGV[1] - 1)) or 0)}`

	// pourScript pours a request into a bucket that passes one each ARGV[1] us and holds ARGV[2]. It returns the us that the request is
	// ahead of the rate, -1 when it does not fit. The key holds the time at which the bucket will be empty.
	pourScript = `local t = redis.call('TIME')
local now, interval = t[1] * 1000000 + t[2], tonumber(ARGV[1])
local empty = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now - interval) + interval
local ahead = empty - now
if ahead / interval > tonumber(ARGV[2]) then
  return {-1}
end
redis.call('SET', KEYS[1], string.format('%.3f', empty), 'PX', math.ceil((ahead + interval) / 1000))
return {math.max(ahead, 0)}`

	// enterScript notes the request ARGV[1] unless ARGV[2] are noted, for ARGV[3] ms at most. It returns whether it did and the number of
	// requests with this one. A gateway that died takes its requests out of the count after that time.
	enterScript = `local t = redis.call('TIME')
local now, ttl = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local n = redis.call('ZCARD', KEYS[1])
if n >= tonumber(ARGV[2]) then
  return {0, n}
end
redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ttl)
return {1, n + 1}`

	leaveScript = `return {redis.call('ZREM', KEYS[1], ARGV[1])}`

	// probeScript shows that the server lets us write.
	probeScript = `redis.call('SET', KEYS[1], '', 'PX', 1)
return {1}`
)
