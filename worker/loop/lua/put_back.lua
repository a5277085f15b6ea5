-- Put back a job that this worker cannot run, for one that can; the try does not count.
--
-- The wait grows with the time the job has already waited. Returns it in milliseconds; -1 when the
-- job has waited long enough, or when its body would expire before it is looked at again: the
-- caller then ends it while its name and arguments are still known.
--
-- KEYS: queue
-- ARGV: worker, id, try, age_max_ms, delay_min_ms, delay_max_ms, growth, suspect (1 or 0)
local queue, worker, id, try = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local age_max, delay_min, delay_max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
-- How long before a body expires the job is looked at for the last time, and the shortest wait.
local MARGIN_MS = 1000
local now = now_ms()
if not holds(worker, id, try) then
  return 0
end
local since = whole(read('GET', UNKNOWN .. id))
if not since or since < 1 or since > now then
  since = now
end
local delay = math.floor(math.min(delay_max, math.max(delay_min, (now - since) * ARGV[7])))
local left = redis.call('PTTL', JOB .. id)
if left >= 0 then
  delay = math.min(delay, left - MARGIN_MS)
end
if now - since >= age_max or delay < MARGIN_MS then
  return -1
end
redis.call('SET', UNKNOWN .. id, since, 'PX', 2 * age_max)
redis.call('ZADD', queue, 'XX', now + delay, id)
give_back_try(id)
if ARGV[8] == '1' then
  redis.call('DEL', IN_PROGRESS .. id)
else
  redis.call('DEL', IN_PROGRESS .. id, CLAIMS .. id)
end
return delay
