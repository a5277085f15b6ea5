-- Put back a job that this worker cannot run, for one that can; the try does not count.
--
-- The wait grows with the time the job has already waited. Returns it in milliseconds; -1 when the
-- job has waited long enough, or when its body would expire before it is looked at again: the
-- caller then ends it while its name and arguments are still known.
--
-- KEYS: queue
-- ARGV: worker, id, try, age_max_ms, delay_min_ms, delay_max_ms, growth
local queue, worker, id, try = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local age_max, delay_min, delay_max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()
if not holds(worker, id, try) then
  return 0
end
local since = tonumber(redis.call('GET', UNKNOWN .. id) or now)
local delay = math.floor(math.min(delay_max, math.max(delay_min, (now - since) * ARGV[7])))
local left = redis.call('PTTL', JOB .. id)
if now - since >= age_max or (left >= 0 and left <= delay + delay_min) then
  return -1
end
redis.call('SET', UNKNOWN .. id, since, 'PX', 2 * age_max)
redis.call('ZADD', queue, 'XX', now + delay, id)
give_back_try(id)
redis.call('DEL', IN_PROGRESS .. id)
return delay
