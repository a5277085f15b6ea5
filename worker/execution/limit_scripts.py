"""What Redis does for limits: permits taken, renewed and given back, each in one atomic step.

KEYS of a limit: `held`, the permits that are out, by the end of their leases; `waiting`, the jobs
that were refused one, by when they first were; `rate`, when the next may begin; `due`, the jobs
that were promised a time. A member is a job: its queue's key, a line feed, its id.
"""

from typing import Final

# ARGV: member, lease_ms, limit (0: none), interval_ms (0: none), tolerance_ms.
# Returns 0 if the permit is given; else in how many milliseconds to ask again.
#
# Who waits for a permit is told when one is given back (RELEASE), and asks again now and then all
# the same: about a hundred of one limit in a second, however many wait. Who waits for its time is
# promised one, in order; who does not come is forgotten.
TAKE: Final = """
local held, waiting, rate, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, lease_ms, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local interval, tolerance = tonumber(ARGV[4]), tonumber(ARGV[5])
local KEPT_MS, ASK_MIN_MS, ASK_MAX_MS, HORIZON_MS, LATE_MS = 86400000, 1000, 30000, 600000, 10000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text_of(ms) return string.format('%.3f', ms) end

if limit > 0 then
  redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
  if not redis.call('ZSCORE', held, member) and redis.call('ZCARD', held) >= limit then
    -- By the microsecond: of two in one millisecond, too, the first is the first.
    redis.call('ZADD', waiting, 'NX', text_of(time[1] * 1000 + time[2] / 1000), member)
    redis.call('PEXPIRE', waiting, KEPT_MS)
    local waited = now - tonumber(redis.call('ZSCORE', waiting, member))
    local wait = math.max(ASK_MIN_MS, 10 * redis.call('ZCARD', waiting), math.floor(waited / 5))
    return math.min(wait, ASK_MAX_MS)
  end
end
if interval > 0 then
  redis.call('ZREMRANGEBYSCORE', due, '-inf', now - LATE_MS)
  local promised = tonumber(redis.call('ZSCORE', due, member) or nil)
  local next_at = tonumber(redis.call('GET', rate) or 0)
  local start = math.max(next_at - tolerance, now)
  if promised and promised > now then
    start = promised
  elseif start > now or (not promised and redis.call('ZCARD', due) > 0) then
    local last = redis.call('ZREVRANGE', due, 0, 0, 'WITHSCORES')[2]
    start = math.max(start, last and tonumber(last) + interval or 0)
    if start - now <= HORIZON_MS then
      redis.call('ZADD', due, text_of(start), member)
      redis.call('PEXPIRE', due, HORIZON_MS + KEPT_MS)
    end
  end
  if start > now then
    redis.call('ZREM', held, member)
    return math.min(math.ceil(start - now), HORIZON_MS)
  end
  redis.call('ZREM', due, member)
  next_at = math.max(next_at, now) + interval
  redis.call('SET', rate, text_of(next_at), 'PX', math.ceil(next_at - now) + KEPT_MS)
end
if limit > 0 then
  redis.call('ZADD', held, now + lease_ms, member)
  redis.call('PEXPIRE', held, lease_ms + KEPT_MS)
  redis.call('ZREM', waiting, member)
end
return 0
"""

# KEYS: held. ARGV: lease_ms, member. A permit that Redis has forgotten is out all the same.
RENEW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[1] + 86400000)
"""

# KEYS: held, waiting. ARGV: member, kept_ms, bell suffix. The permit is kept for a moment for the
# job that has waited longest and still is in its queue; that job is due at once.
RELEASE: Final = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _ = 1, 100 do
  local first = redis.call('ZPOPMIN', KEYS[2])[1]
  if not first then
    return 0
  end
  local queue, id = string.match(first, '^([^\\n]*)\\n(.*)$')
  if redis.call('ZSCORE', queue, id) then
    redis.call('ZADD', KEYS[1], now + ARGV[2], first)
    redis.call('ZADD', queue, 'XX', 'LT', now, id)
    redis.pcall('ZADD', queue .. ARGV[3], 0, 'ring')
    return 1
  end
end
return 0
"""
