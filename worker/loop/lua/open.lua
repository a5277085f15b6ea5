-- Count the claim of a suspect that is about to run, so that it is known if the process dies.
--
-- Its lease is longer than others': perhaps no process died, and the job kept one from renewing.
--
-- KEYS: queue
-- ARGV: worker, id, try, lease_ms
-- Returns whether the worker still holds the job (1 or 0); if not, it must not run it.
local worker, id, lease_ms = ARGV[1], ARGV[2], ARGV[4]
if not holds(worker, id, ARGV[3]) then
  return 0
end
count_up(CLAIMS .. id)
redis.call('SET', IN_PROGRESS .. id, worker, 'PX', lease_ms)
read('ZADD', KEYS[1], 'XX', now_ms() + lease_ms, id)
return 1
